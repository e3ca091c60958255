//! Holding a sandbox still and letting it go on, by its client and by traffic.

use std::time::{Duration, Instant};

use casemate_client::Envd;
use casemate_client::api::Kept;

use super::{Bench, LIFE, WARM_UP, run_true};
use crate::bench::error::BenchError;
use crate::bench::floor::Request;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

impl Bench<'_> {
    pub(in crate::bench) async fn pause_and_resume(&mut self) -> Result<(), BenchError> {
        let sandbox = self.create().await?;
        let envd = self.envd(&sandbox)?;
        let id = sandbox.sandbox_id;
        let measured = self.rests(&id, &envd).await;
        self.kill(&[id]).await?;
        let figures = measured?;
        self.figures.extend(figures);
        Ok(())
    }

    async fn rests(&mut self, id: &str, envd: &Envd) -> Result<Vec<Figure>, BenchError> {
        let [mut pause, mut resume, mut wake, mut trip] = [(); 4].map(|()| Samples::default());
        let (mut freeze, mut thaw) = (Samples::default(), Samples::default());
        for sample in 0..WARM_UP + self.options.count {
            let bare_freeze = self.floor.measure(Request::Freeze).await?;
            let bare_thaw = self.floor.measure(Request::Thaw).await?;
            let paused = self.pause(id).await?;
            let begun = Instant::now();
            self.resume(id).await?;
            let resumed = begun.elapsed();
            let begun = Instant::now();
            run_true(envd).await?;
            let ran = begun.elapsed();
            self.pause(id).await?;
            let begun = Instant::now();
            run_true(envd).await?;
            let woken = begun.elapsed();
            if sample >= WARM_UP {
                freeze.push_duration(bare_freeze);
                thaw.push_duration(bare_thaw);
                pause.push_duration(paused);
                resume.push_duration(resumed);
                trip.push_duration(ran);
                wake.push_duration(woken);
            }
        }
        Ok(vec![
            Figure::time("pause", &pause)
                .beside(
                    "`cgroup.freeze` of three processes until they stand",
                    &freeze,
                )
                .at_most_above_floor(5.0),
            Figure::time("resume", &resume)
                .beside("the same three let go on", &thaw)
                .at_most_above_floor(5.0),
            Figure::time("traffic wakes it → result of `/bin/true`", &wake)
                .beside("a resume", &resume)
                .beside("a command right after it", &trip)
                .at_most_above_floor(5.0),
        ])
    }

    async fn pause(&self, id: &str) -> Result<Duration, BenchError> {
        let begun = Instant::now();
        let paused = self.api.sandbox_pause(id, Kept::Memory).await;
        paused.map_err(|source| BenchError::Api {
            action: "pause a sandbox",
            source,
        })?;
        Ok(begun.elapsed())
    }

    async fn resume(&self, id: &str) -> Result<(), BenchError> {
        let resumed = self.api.sandbox_connect(id, Some(LIFE), Kept::Memory).await;
        resumed.map(drop).map_err(|source| BenchError::Api {
            action: "resume a sandbox",
            source,
        })
    }
}
