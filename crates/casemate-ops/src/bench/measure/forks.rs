//! Many forks at the same time.

use std::time::{Duration, Instant};

use casemate_client::api::ForkResult;

use super::{Bench, LIFE, run_script};
use crate::bench::error::BenchError;
use crate::bench::floor::Request;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// How long the platform is left alone between two rounds, to fill up its stock again.
const REST: Duration = Duration::from_secs(5);
/// What the parent has written.
const WRITTEN: &str = "head -c 1000000 /dev/urandom >/home/user/written";

impl Bench<'_> {
    pub(in crate::bench) async fn forks(&mut self) -> Result<(), BenchError> {
        let count = self.options.burst.min(100);
        let parent = self.create().await?;
        let envd = self.envd(&parent)?;
        let written = run_script(&envd, WRITTEN).await.map(drop);
        let measured = match written {
            Ok(()) => self.rounds_of_forks(&parent.sandbox_id, count).await,
            Err(error) => Err(error),
        };
        self.kill(&[parent.sandbox_id]).await?;
        let (wall, floor) = measured?;
        self.figures.push(
            Figure::time(&format!("{count} forks at once, wall"), &wall)
                .beside(
                    &format!("{count} times the floor of a create at once"),
                    &floor,
                )
                .at_most(1000.0),
        );
        Ok(())
    }

    async fn rounds_of_forks(
        &mut self,
        parent: &str,
        count: usize,
    ) -> Result<(Samples, Samples), BenchError> {
        let many = u16::try_from(count).unwrap_or(u16::MAX);
        let (mut wall, mut floor) = (Samples::default(), Samples::default());
        for _ in 0..self.options.burst_rounds {
            tokio::time::sleep(REST).await;
            floor.push_duration(self.floor.measure(Request::Together(many)).await?);
            let begun = Instant::now();
            let forks = self.api.sandbox_fork(parent, many.into(), Some(LIFE));
            let forks = forks.await.map_err(|source| BenchError::Api {
                action: "fork a sandbox",
                source,
            })?;
            let took = begun.elapsed();
            let (mut ids, mut why) = (Vec::new(), None);
            for fork in forks {
                match fork {
                    ForkResult::Sandbox(made) => ids.push(made.sandbox_id),
                    ForkResult::Error(error) => why = Some(error.message),
                }
            }
            self.kill(&ids).await?;
            if let Some(why) = why {
                let made = ids.len();
                return Err(BenchError::Forks { made, count, why });
            }
            wall.push_duration(took);
        }
        Ok((wall, floor))
    }
}
