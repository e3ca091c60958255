//! Many clients, each creating one sandbox after the other.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::{Bench, run_true};
use crate::bench::Scale;
use crate::bench::error::BenchError;
use crate::bench::floor::Request;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// Sandboxes of each client in a round.
const EACH: usize = 6;
const ROUNDS: usize = 3;
/// The share of the floor's throughput that is hoped for.
const SHARE: f64 = 0.6;

impl Bench<'_> {
    /// Create, run `/bin/true`, end: how long each takes, when so many are under way that the
    /// processors never rest. Compared is throughput, told as its inverse.
    pub(in crate::bench) async fn throughput(&mut self, scale: &Scale) -> Result<(), BenchError> {
        let clients = scale.clients;
        let together = Request::Agents(u16::try_from(clients).unwrap_or(u16::MAX));
        let (mut each, mut floor) = (Samples::default(), Samples::default());
        for _ in 0..ROUNDS {
            let bare = self.floor.measure(together).await?;
            floor.push_duration(share(bare, clients));
            let begun = Instant::now();
            try_join_all((0..clients).map(|_| self.lives(EACH))).await?;
            each.push_duration(share(begun.elapsed(), clients * EACH));
        }
        let most = floor.p50() / SHARE;
        self.figures.push(
            Figure::time(
                &format!("{clients} clients at once, per create, `/bin/true`, end"),
                &each,
            )
            .beside(
                &format!(
                    "{clients} times namespaces (network too) + overlay + the agent serves + `/bin/true` + end, at once"
                ),
                &floor,
            )
            .at_most(most),
        );
        Ok(())
    }

    /// One client.
    async fn lives(&self, count: usize) -> Result<(), BenchError> {
        for _ in 0..count {
            let sandbox = self.create().await?;
            let ran = run_true(&self.envd(&sandbox)?).await;
            self.kill(&[sandbox.sandbox_id]).await?;
            ran?;
        }
        Ok(())
    }
}

fn share(wall: Duration, count: usize) -> Duration {
    wall / u32::try_from(count).unwrap_or(u32::MAX)
}
