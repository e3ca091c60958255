//! What the platform's processes do while nothing happens.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use super::Bench;
use super::memory::family;
use crate::bench::Scale;
use crate::bench::error::BenchError;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// What was begun by the creates is over by then.
const REST: Duration = Duration::from_secs(20);
/// Rare work must fall into it.
const LOOK: Duration = Duration::from_secs(60);
/// In which the kernel tells processor time, on every machine.
pub(super) const TICKS_PER_SECOND: f64 = 100.0;
/// Of one processor.
const PERCENT_MAX: f64 = 1.0;

impl Bench<'_> {
    pub(in crate::bench) async fn idle_processor(
        &mut self,
        scale: &Scale,
    ) -> Result<(), BenchError> {
        let count = scale.idle;
        if self.options.platform.is_empty() || count == 0 {
            return Ok(());
        }
        let ids = self.create_many(count).await?;
        tokio::time::sleep(REST).await;
        let used = self.used_while_idle().await;
        self.kill(&ids).await?;
        let mut samples = Samples::default();
        samples.push(used?);
        let name = format!("processor time of the platform with {count} idle sandboxes");
        self.figures
            .push(Figure::percent(&name, &samples).at_most(PERCENT_MAX));
        Ok(())
    }

    /// In hundredths of one processor.
    async fn used_while_idle(&self) -> Result<f64, BenchError> {
        let before = ticks(&family(&self.options.platform)?);
        let begun = Instant::now();
        tokio::time::sleep(LOOK).await;
        let took = begun.elapsed();
        let after = ticks(&family(&self.options.platform)?);
        let used: u64 = after
            .iter()
            .map(|(pid, now)| now.saturating_sub(before.get(pid).copied().unwrap_or(0)))
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "a minute has few ticks")]
        let seconds = used as f64 / TICKS_PER_SECOND;
        Ok(seconds / took.as_secs_f64() * 100.0)
    }
}

/// Processor time of each process since it began, in ticks of the clock.
pub(super) fn ticks(pids: &[u32]) -> HashMap<u32, u64> {
    let of = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut times = rest.split_whitespace().skip(11).map(str::parse::<u64>);
        Some(times.next()?.ok()? + times.next()?.ok()?)
    };
    pids.iter()
        .filter_map(|pid| Some((*pid, of(*pid)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_has_used_time() {
        let me = std::process::id();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let ticks = ticks(&[me, u32::MAX]);
        assert_eq!(ticks.len(), 1);
        assert!(ticks[&me] > 0);
    }
}
