//! From nothing to the result of a command.

use std::time::Instant;

use super::{Bench, WARM_UP, run_true};
use crate::bench::error::BenchError;
use crate::bench::floor::Request;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

impl Bench<'_> {
    /// Create, run `/bin/true`, have its result; and the two parts of it.
    pub(in crate::bench) async fn create_and_run(&mut self) -> Result<(), BenchError> {
        let mut whole = Samples::default();
        let (mut create, mut command) = (Samples::default(), Samples::default());
        let mut floor = Samples::default();
        for sample in 0..WARM_UP + self.options.count {
            let bare = self.floor.measure(Request::Sandbox).await?;
            let begun = Instant::now();
            let sandbox = self.create().await?;
            let created = begun.elapsed();
            let envd = self.envd(&sandbox)?;
            let ran = run_true(&envd).await;
            let took = begun.elapsed();
            // Ended off the clock, and also when the command failed.
            self.kill(&[sandbox.sandbox_id]).await?;
            ran?;
            if sample >= WARM_UP {
                floor.push_duration(bare);
                whole.push_duration(took);
                create.push_duration(created);
                command.push_duration(took - created);
            }
        }
        self.figures.extend([
            Figure::time("create → result of `/bin/true`", &whole)
                .beside("namespaces + overlay + exec of `/bin/true`", &floor)
                .at_most_above_floor(5.0),
            Figure::time("· of it: create", &create),
            Figure::time("· of it: first command", &command),
        ]);
        Ok(())
    }

    /// The whole of it alone, after a warm-up, with its floor in turn.
    pub(super) async fn whole(&mut self, count: usize) -> Result<(Samples, Samples), BenchError> {
        let (mut whole, mut floor) = (Samples::default(), Samples::default());
        for sample in 0..WARM_UP + count {
            let bare = self.floor.measure(Request::Sandbox).await?;
            let begun = Instant::now();
            let sandbox = self.create().await?;
            let ran = run_true(&self.envd(&sandbox)?).await;
            let took = begun.elapsed();
            self.kill(&[sandbox.sandbox_id]).await?;
            ran?;
            if sample >= WARM_UP {
                floor.push_duration(bare);
                whole.push_duration(took);
            }
        }
        Ok((whole, floor))
    }
}
