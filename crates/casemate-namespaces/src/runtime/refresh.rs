//! Keeping up what sandboxes see of their machines.
//!
//! Each second one cheap number of each sandbox is read: the processor time that it spent. Where it
//! moved, the sandbox's files are rewritten. One that rests is looked at less often; half a minute
//! after it came to rest all its files are rewritten once more, because the file system counts late,
//! and from then on, as often, those that change by themselves: load sinks, idle time grows.
//! Without sandboxes nothing runs.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Entry, Running, Shared, blocking, lock};
use crate::cgroup::CpuClock;
use crate::view::Figures;

/// How often it is looked whether a sandbox did something.
const LOOK: Duration = Duration::from_secs(1);
/// How old the files of an idle sandbox become.
const IDLE: Duration = Duration::from_secs(30);
/// One that has not moved for so long is looked at in one round of several only.
const RESTING: Duration = Duration::from_secs(10);
const ROUNDS: u64 = 4;

/// What is known of a sandbox whose files are kept up.
#[derive(Debug)]
pub(super) struct Shown {
    clock: CpuClock,
    /// What the clock said when the files were last written.
    spent: Duration,
    written: Instant,
    /// When it was seen to move.
    moved: Instant,
    /// Whether all files say how it came to rest.
    settled: bool,
    figures: Figures,
}

impl Shown {
    /// Of a sandbox that has just begun.
    pub(super) fn begin(shared: &Shared, group: &str, figures: Figures) -> io::Result<Self> {
        Ok(Self {
            clock: shared.cgroups.cpu_clock(group)?,
            spent: Duration::ZERO,
            written: Instant::now(),
            moved: Instant::now(),
            settled: false,
            figures,
        })
    }

    /// Of one that was begun by an earlier process: its files are written soon.
    pub(super) fn resume(shared: &Shared, group: &str, mut figures: Figures) -> io::Result<Self> {
        figures.resume(&shared.cgroups.usage(group)?);
        Self::begin(shared, group, figures)
    }

    fn refresh(&mut self, shared: &Shared, running: &Running, round: u64) -> io::Result<()> {
        let slot = running.facts.slot;
        if self.moved.elapsed() > RESTING && !(round + u64::from(slot)).is_multiple_of(ROUNDS) {
            return Ok(());
        }
        let spent = self.clock.read()?;
        let moved = spent != self.spent;
        if !moved && self.written.elapsed() < IDLE {
            return Ok(());
        }
        let now = Instant::now();
        if moved || !self.settled {
            let usage = shared.cgroups.usage(&running.group)?;
            let disk = match self.figures.has_disk() {
                true => Some(shared.pool.used_bytes(&running.layer)?),
                false => None,
            };
            self.figures.show(&shared.views, slot, &usage, disk)?;
            self.settled = !moved;
        } else {
            self.figures.age(&shared.views, slot)?;
        }
        if moved {
            self.moved = now;
        }
        (self.spent, self.written) = (spent, now);
        Ok(())
    }
}

pub(super) async fn keep_up(shared: Arc<Shared>) {
    for round in 0.. {
        let running = running(&shared);
        if running.is_empty() {
            shared.first.notified().await;
            continue;
        }
        let refresher = Arc::clone(&shared);
        let refreshed = blocking("show sandboxes their machines", move || {
            for running in &running {
                refresh(&refresher, running, round);
            }
            Ok::<_, io::Error>(())
        });
        if let Err(error) = refreshed.await {
            let cause = error.to_string();
            tracing::warn!(cause, "sandboxes see old figures of their machines");
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn refresh(shared: &Shared, running: &Running, round: u64) {
    let mut shown = lock(&running.shown);
    let Some(one) = shown.as_mut() else {
        return;
    };
    if let Err(error) = one.refresh(shared, running, round) {
        // Once it ends its groups and files go; until then its files stay as they are.
        *shown = None;
        let cause = error.to_string();
        tracing::debug!(cause, "figures of {} are not kept up", running.group);
    }
}

fn running(shared: &Shared) -> Vec<Arc<Running>> {
    let table = lock(&shared.table);
    let running = table.values().filter_map(|entry| match entry {
        Entry::Running(running) => Some(Arc::clone(running)),
        Entry::Making | Entry::Ending => None,
    });
    running.collect()
}
