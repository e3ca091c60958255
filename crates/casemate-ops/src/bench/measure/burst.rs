//! Many creates at the same time.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Bench;
use crate::bench::error::BenchError;
use crate::bench::floor::Request;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// How long the platform is left alone between two rounds, to fill up its stock again.
const REST: Duration = Duration::from_secs(5);

impl Bench<'_> {
    pub(in crate::bench) async fn burst(&mut self) -> Result<(), BenchError> {
        let count = self.options.burst;
        let together = Request::Together(u16::try_from(count).unwrap_or(u16::MAX));
        let (mut wall, mut floor) = (Samples::default(), Samples::default());
        for _ in 0..self.options.burst_rounds {
            tokio::time::sleep(REST).await;
            floor.push_duration(self.floor.measure(together).await?);
            let begun = Instant::now();
            let created = join_all((0..count).map(|_| self.create())).await;
            let took = begun.elapsed();
            let (mut ids, mut refused) = (Vec::new(), None);
            for outcome in created {
                match outcome {
                    Ok(sandbox) => ids.push(sandbox.sandbox_id),
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
            self.kill(&ids).await?;
            if let Some(error) = refused {
                // A burst that was not served whole is no sample.
                return Err(error);
            }
            wall.push_duration(took);
        }
        self.figures.push(
            Figure::time(&format!("{count} creates at once, wall"), &wall)
                .beside(
                    &format!("{count} times the floor of a create at once"),
                    &floor,
                )
                .at_most(400.0),
        );
        Ok(())
    }
}
