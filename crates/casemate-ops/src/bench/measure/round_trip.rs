//! A command in a sandbox that is there already.

use std::time::Instant;

use casemate_client::Envd;

use super::{Bench, WARM_UP, run_true};
use crate::bench::error::BenchError;
use crate::bench::floor::Request;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

impl Bench<'_> {
    pub(in crate::bench) async fn round_trip(&mut self) -> Result<(), BenchError> {
        let sandbox = self.create().await?;
        let envd = self.envd(&sandbox)?;
        let measured = self.rounds(&envd).await;
        self.kill(&[sandbox.sandbox_id]).await?;
        let (trip, floor) = measured?;
        self.figures.push(
            Figure::time("a command's round trip", &trip)
                .beside("fork + exec + wait of `/bin/true`", &floor)
                .at_most_above_floor(0.5),
        );
        Ok(())
    }

    async fn rounds(&mut self, envd: &Envd) -> Result<(Samples, Samples), BenchError> {
        let (mut trip, mut floor) = (Samples::default(), Samples::default());
        for sample in 0..WARM_UP + self.options.count {
            let bare = self.floor.measure(Request::Spawn).await?;
            let begun = Instant::now();
            run_true(envd).await?;
            let took = begun.elapsed();
            if sample >= WARM_UP {
                floor.push_duration(bare);
                trip.push_duration(took);
            }
        }
        Ok((trip, floor))
    }
}
