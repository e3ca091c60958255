//! The same create with few and with many sandboxes, and with more mounts on the host.

use std::time::Duration;

use super::Bench;
use super::mounts::Mounts;
use crate::bench::Scale;
use crate::bench::error::BenchError;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// Few sandboxes, beside which many are looked at.
const FEW: usize = 10;
/// The most that many may cost, as a multiple.
const TIMES: f64 = 1.2;
/// How long the platform is left alone after many creates or kills.
const REST: Duration = Duration::from_secs(10);

impl Bench<'_> {
    /// Few, many, few again: what the machine itself does meanwhile shows in the difference of the
    /// two ends.
    pub(in crate::bench) async fn beside_live(&mut self, scale: &Scale) -> Result<(), BenchError> {
        let count = self.options.count;
        let few = self.create_many(FEW.min(scale.live)).await?;
        let outcome = self.around(&few, scale.live, count).await;
        self.kill(&few).await?;
        let (with_few, with_many) = outcome?;
        let name = format!("create → result with {} live sandboxes", scale.live);
        let beside = format!("the same with {FEW}, before and after");
        self.compare(&name, &with_many, &beside, &with_few);
        Ok(())
    }

    async fn around(
        &mut self,
        few: &[String],
        live: usize,
        count: usize,
    ) -> Result<(Samples, Samples), BenchError> {
        tokio::time::sleep(REST).await;
        let (mut with_few, _) = self.whole(count).await?;
        let more = self.create_many(live.saturating_sub(few.len())).await?;
        tokio::time::sleep(REST).await;
        let measured = self.whole(count).await;
        self.kill(&more).await?;
        let (with_many, _) = measured?;
        tokio::time::sleep(REST).await;
        let (again, _) = self.whole(count).await?;
        with_few.extend(&again);
        Ok((with_few, with_many))
    }

    /// Without, with, and again without.
    pub(in crate::bench) async fn beside_mounts(
        &mut self,
        scale: &Scale,
    ) -> Result<(), BenchError> {
        if self.options.platform.is_empty() {
            return Ok(());
        }
        let count = self.options.count;
        let (mut without, _) = self.whole(count).await?;
        let mounts = Mounts::make(scale.mounts).map_err(|source| BenchError::Io {
            action: "mount on the host",
            source,
        })?;
        let measured = self.whole(count).await;
        drop(mounts);
        let (with, _) = measured?;
        let (again, _) = self.whole(count).await?;
        without.extend(&again);
        let name = format!(
            "create → result with {} more mounts on the host",
            scale.mounts
        );
        self.compare(&name, &with, "the same without, before and after", &without);
        Ok(())
    }

    fn compare(&mut self, name: &str, samples: &Samples, beside: &str, floor: &Samples) {
        let most = floor.p50() * TIMES;
        let figure = Figure::time(name, samples).beside(beside, floor);
        self.figures.push(figure.at_most(most));
    }
}
