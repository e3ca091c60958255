//! What a create costs with databases that several servers can share, against the stores of one machine.

use std::fmt;
use std::time::{Duration, Instant};

use casemate_client::Api;

use super::Bench;
use super::memory::family;
use super::processor::{TICKS_PER_SECOND, ticks};
use crate::bench::error::BenchError;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// Creates of one turn: the kernel tells processor time in hundredths of a second.
const CREATES: usize = 40;
/// Turns of each, if no fewer samples are asked for.
const TURNS_MAX: usize = 16;
/// After the last create, and after the last end: what the history gathers is written by then.
const SETTLE: Duration = Duration::from_millis(1500);
/// The most that databases may cost, as a multiple.
const TIMES: f64 = 1.5;

/// Another installation of this machine, with databases.
#[derive(Clone)]
pub struct Beside {
    pub api: Api,
    /// Its processes, with their descendants.
    pub platform: Vec<u32>,
    /// Those of its databases.
    pub databases: Vec<u32>,
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beside")
            .field("platform", &self.platform)
            .field("databases", &self.databases)
            .finish_non_exhaustive()
    }
}

/// What a create of one installation cost, in milliseconds; a sample is a turn.
#[derive(Default)]
struct Side {
    processor: Samples,
    databases: Samples,
    took: Samples,
}

impl Bench<'_> {
    /// In turn, and each of the two first as often as the other.
    pub(in crate::bench) async fn beside_databases(&mut self) -> Result<(), BenchError> {
        let Some(beside) = &self.options.beside else {
            return Ok(());
        };
        let alone = Beside {
            api: self.api.clone(),
            platform: self.options.platform.clone(),
            databases: Vec::new(),
        };
        let (mut one, mut other) = (Side::default(), Side::default());
        let mut ratios = Samples::default();
        // The first of each makes connections and fills caches.
        self.turn(&alone, &mut Side::default()).await?;
        self.turn(beside, &mut Side::default()).await?;
        for turn in 0..self.options.count.min(TURNS_MAX) {
            let (less, more) = if turn % 2 == 0 {
                let less = self.turn(&alone, &mut one).await?;
                (less, self.turn(beside, &mut other).await?)
            } else {
                let more = self.turn(beside, &mut other).await?;
                (self.turn(&alone, &mut one).await?, more)
            };
            ratios.push(more / less);
        }
        let embedded = "the same with the stores of one machine";
        self.figures.extend([
            Figure::time(
                "processor time of a create with PostgreSQL and Redis, theirs included",
                &other.processor,
            )
            .beside(embedded, &one.processor)
            .at_most(one.processor.p50() * TIMES),
            Figure::time("· of it: of the databases", &other.databases),
            Figure::time("· how long a create takes", &other.took).beside(embedded, &one.took),
        ]);
        self.notes.push(format!(
            "processor time with databases, of that without, turn by turn: ×{:.2} (quartiles {:.2} and {:.2}, \
             {} turns of {CREATES} creates)",
            ratios.p50(),
            ratios.percentile(25),
            ratios.percentile(75),
            ratios.count()
        ));
        Ok(())
    }

    /// The processor time of a create.
    async fn turn(&self, of: &Beside, side: &mut Side) -> Result<f64, BenchError> {
        let before = used(of)?;
        let begun = Instant::now();
        let mut ids = Vec::with_capacity(CREATES);
        let mut refused = None;
        while ids.len() < CREATES && refused.is_none() {
            match self.create_at(&of.api, &self.options.template).await {
                Ok(sandbox) => ids.push(sandbox.sandbox_id),
                Err(error) => refused = Some(error),
            }
        }
        let took = begun.elapsed();
        tokio::time::sleep(SETTLE).await;
        let after = used(of)?;
        self.kill_at(&of.api, &ids).await?;
        if let Some(error) = refused {
            return Err(error);
        }
        tokio::time::sleep(SETTLE).await;
        #[expect(clippy::cast_precision_loss, reason = "some dozens")]
        let creates = CREATES as f64;
        let whole = (after.0 - before.0) / creates;
        side.processor.push(whole);
        side.databases.push((after.1 - before.1) / creates);
        side.took.push_duration(took.div_f64(creates));
        Ok(whole)
    }
}

/// Processor time so far in milliseconds: of all, and of the databases among them.
fn used(of: &Beside) -> Result<(f64, f64), BenchError> {
    let platform = spent(&family(&of.platform)?);
    let mut databases = 0.0;
    for root in &of.databases {
        // Each by itself: all children of the first of a family belong to it.
        databases += spent(&family(&[*root])?);
    }
    Ok((platform + databases, databases))
}

fn spent(pids: &[u32]) -> f64 {
    let ticks: u64 = ticks(pids).values().sum();
    #[expect(clippy::cast_precision_loss, reason = "a process has few ticks")]
    let seconds = ticks as f64 / TICKS_PER_SECOND;
    seconds * 1000.0
}
