//! The one look at everything that runs: what it consumed, for whoever asks, and what its programs
//! see of their machine.
//!
//! Processor time tells whether there is anything to look at. While that of all sandboxes together
//! stands still, one number is read and nothing else; where a sandbox's own moved, its figures are
//! read and its files rewritten. What a sandbox at rest still needs is little and late: the file
//! system counts with a delay, load sinks, idle time grows, the kernel takes memory back.
//!
//! Must not know when to look: that is the caller's.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use casemate_runtime::{Consumption, DiskLimit, RuntimeError, Seen};
use casemate_types::SandboxId;

use super::{Entry, Running, Shared, blocking, lock};
use crate::cgroup::{CpuClock, Meter};
use crate::view::Figures;

/// How old the files of a sandbox at rest become.
const IDLE: Duration = Duration::from_secs(30);
/// What a sandbox wrote is counted by then: half a minute until the kernel writes it out, and as
/// much until that is final.
const SETTLED: Duration = Duration::from_secs(120);
/// The kernel takes memory back from sandboxes at rest too: they are read this often all the same.
const READ_AGAIN: Duration = Duration::from_secs(300);

/// Whether any sandbox did something since the look before.
#[derive(Debug)]
pub(super) struct Stir {
    clock: CpuClock,
    spent: Mutex<Option<Duration>>,
}

impl Stir {
    pub(super) fn new(clock: CpuClock) -> Self {
        Self {
            clock,
            spent: Mutex::default(),
        }
    }

    fn is_there(&self) -> bool {
        // Read before any sandbox's own: what moves in between is seen by the next look.
        let now = self.clock.read().ok();
        let before = std::mem::replace(&mut *lock(&self.spent), now);
        now.is_none() || now != before
    }
}

/// What is known of a sandbox from one look to the next.
#[derive(Debug)]
pub(super) struct Sight {
    /// `None` where its files are not kept up.
    figures: Option<Figures>,
    /// Begun by an earlier process, which counted until an unknown moment.
    resumed: bool,
    /// Processes that the kernel ended for want of memory, as counted last.
    memory_kills: u64,
    /// From the first look on.
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    meter: Meter,
    consumption: Consumption,
    moved: Instant,
    read: Instant,
    written: Instant,
}

/// What one look at one sandbox gives.
struct Glance {
    consumption: Consumption,
    stirred: bool,
    memory_kills: u64,
}

impl Sight {
    /// Of a sandbox that has just begun.
    pub(super) fn begin(figures: Figures) -> Self {
        Self {
            figures: Some(figures),
            resumed: false,
            memory_kills: 0,
            last: None,
        }
    }

    /// Of one that was begun by an earlier process.
    pub(super) fn resume(figures: Option<Figures>) -> Self {
        Self {
            figures,
            resumed: true,
            memory_kills: 0,
            last: None,
        }
    }

    fn look(&mut self, shared: &Shared, running: &Running, stir: bool) -> io::Result<Glance> {
        let before = self.last.as_ref().map(|last| last.consumption.cpu_time);
        let consumption = self.consumption(shared, running, stir)?;
        Ok(Glance {
            stirred: before != Some(consumption.cpu_time),
            memory_kills: self.memory_kills,
            consumption,
        })
    }

    fn consumption(
        &mut self,
        shared: &Shared,
        running: &Running,
        stir: bool,
    ) -> io::Result<Consumption> {
        let now = Instant::now();
        let Some(last) = &mut self.last else {
            let meter = shared.cgroups.meter(&running.group)?;
            let spent = meter.clock()?;
            let consumption = self.read(shared, running, &meter, spent)?;
            self.last = Some(Last {
                meter,
                consumption,
                moved: now,
                read: now,
                written: now,
            });
            return Ok(consumption);
        };
        let spent = match stir {
            true => last.meter.clock()?,
            false => last.consumption.cpu_time,
        };
        if spent != last.consumption.cpu_time {
            last.moved = now;
        }
        let since = |then: Instant| now.saturating_duration_since(then);
        let is_due = match since(last.moved) {
            Duration::ZERO => true,
            rest if rest < SETTLED => since(last.read) >= IDLE,
            _ => since(last.read) >= READ_AGAIN,
        };
        if is_due {
            let Some(mut last) = self.last.take() else {
                return Err(io::ErrorKind::NotFound.into());
            };
            last.consumption = self.read(shared, running, &last.meter, spent)?;
            (last.read, last.written) = (now, now);
            return Ok(self.last.insert(last).consumption);
        }
        let consumption = last.consumption;
        if since(last.written) >= IDLE {
            last.written = now;
            self.show(running, |figures, slot| figures.age(&shared.views, slot));
        }
        Ok(consumption)
    }

    /// Reads all figures, and writes down what the sandbox sees of them.
    fn read(
        &mut self,
        shared: &Shared,
        running: &Running,
        meter: &Meter,
        spent: Duration,
    ) -> io::Result<Consumption> {
        let usage = meter.read()?;
        self.memory_kills = usage.memory_kills;
        let disk = match shared.pool.disk_limit() {
            DiskLimit::Enforced => shared.pool.used_bytes(&running.layer).ok(),
            DiskLimit::Advisory => None,
        };
        let resumed = std::mem::take(&mut self.resumed);
        self.show(running, |figures, slot| {
            if resumed {
                figures.resume(&usage);
            }
            let disk = disk.filter(|_| figures.has_disk());
            figures.show(&shared.views, slot, &usage, disk)
        });
        let cache = usage.memory.cache();
        Ok(Consumption {
            cpu_time: spent,
            memory_used_bytes: usage.memory.used - cache,
            memory_cache_bytes: cache,
            disk_used_bytes: disk,
        })
    }

    /// Rewrites files. Where that fails they stay as they are from then on: no reason to end it.
    fn show(&mut self, running: &Running, write: impl FnOnce(&mut Figures, u16) -> io::Result<()>) {
        let Some(figures) = &mut self.figures else {
            return;
        };
        if let Err(error) = write(figures, running.facts.slot) {
            self.figures = None;
            let cause = error.to_string();
            tracing::debug!(cause, "figures of {} are not kept up", running.group);
        }
    }
}

pub(super) async fn look(shared: &Arc<Shared>) -> Result<Vec<Seen>, RuntimeError> {
    let running = running(shared);
    let shared = Arc::clone(shared);
    blocking("look at sandboxes", move || {
        let stir = shared.stir.is_there();
        let see = |(sandbox, running): (SandboxId, Arc<Running>)| {
            let seen = lock(&running.sight).look(&shared, &running, stir);
            match seen {
                Ok(glance) => Some(Seen {
                    sandbox,
                    consumption: glance.consumption,
                    stirred: glance.stirred,
                    memory_kills: glance.memory_kills,
                }),
                // Once it ends its groups and files go.
                Err(error) => {
                    let cause = error.to_string();
                    tracing::debug!(cause, "cannot look at {sandbox}");
                    None
                }
            }
        };
        Ok::<_, io::Error>(running.into_iter().filter_map(see).collect())
    })
    .await
}

fn running(shared: &Shared) -> Vec<(SandboxId, Arc<Running>)> {
    let table = lock(&shared.table);
    let running = table.iter().filter_map(|(sandbox, entry)| match entry {
        Entry::Running(running) => Some((sandbox.clone(), Arc::clone(running))),
        Entry::Making | Entry::Ending => None,
    });
    running.collect()
}
