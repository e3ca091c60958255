//! Keeping up what sandboxes see of their machines.
//!
//! Each second one cheap number of each sandbox is read: the processor time that it spent. Where it
//! moved, the sandbox's files are rewritten; those of an idle one every half minute, because load
//! sinks and idle time grows all the same. Without sandboxes nothing runs.

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

/// What is known of a sandbox whose files are kept up.
#[derive(Debug)]
pub(super) struct Shown {
    clock: CpuClock,
    /// What the clock said when the files were last written.
    spent: Duration,
    written: Instant,
    figures: Figures,
}

impl Shown {
    /// Of a sandbox that has just begun.
    pub(super) fn begin(shared: &Shared, group: &str, figures: Figures) -> io::Result<Self> {
        Ok(Self {
            clock: shared.cgroups.cpu_clock(group)?,
            spent: Duration::ZERO,
            written: Instant::now(),
            figures,
        })
    }

    /// Of one that was begun by an earlier process: its files are written soon.
    pub(super) fn resume(shared: &Shared, group: &str, mut figures: Figures) -> io::Result<Self> {
        figures.resume(&shared.cgroups.usage(group)?);
        Self::begin(shared, group, figures)
    }

    fn refresh(&mut self, shared: &Shared, running: &Running) -> io::Result<()> {
        let spent = self.clock.read()?;
        if spent == self.spent && self.written.elapsed() < IDLE {
            return Ok(());
        }
        let usage = shared.cgroups.usage(&running.group)?;
        let disk = match self.figures.has_disk() {
            true => Some(shared.pool.used_bytes(&running.layer)?),
            false => None,
        };
        self.figures
            .show(&shared.views, running.facts.slot, &usage, disk)?;
        (self.spent, self.written) = (spent, Instant::now());
        Ok(())
    }
}

pub(super) async fn keep_up(shared: Arc<Shared>) {
    loop {
        let running = running(&shared);
        if running.is_empty() {
            shared.first.notified().await;
            continue;
        }
        let refresher = Arc::clone(&shared);
        let refreshed = blocking("show sandboxes their machines", move || {
            for running in &running {
                refresh(&refresher, running);
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

fn refresh(shared: &Shared, running: &Running) {
    let mut shown = lock(&running.shown);
    let Some(one) = shown.as_mut() else {
        return;
    };
    if let Err(error) = one.refresh(shared, running) {
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
