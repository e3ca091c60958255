//! The one look at all running sandboxes, every second, and what falls out of it: samples, logs,
//! ends of processes for want of memory.
//!
//! One task for all of them: a look at hundreds is one call of the runtime, and its samples are one
//! message. They are made only while somebody watches; logs wait in the sandboxes until then.
//! Without sandboxes nothing is looked at.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::NodeEvent;
use casemate_runtime::{Consumption, LOG_BYTES_MAX, Seen};
use casemate_types::{Sample, SandboxId, Timestamp, Usage, chain, steady};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::node::Inner;
use crate::table::Sampled;

/// How often all are looked at. Those that have no sample yet get one …
const LOOK: Duration = Duration::from_secs(1);
/// … and one look in so many gives one of every sandbox.
const LOOKS_A_ROUND: u32 = 5;
/// A sandbox younger than this is not sampled yet: its start is no measure.
const AGE_MIN: Duration = Duration::from_millis(500);
/// Samples of one message, which has to fit a frame.
const BATCH_MAX: usize = 500;

/// Processor time at a moment.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    cpu_time: Duration,
}

/// Bytes of logs that one look hands on, of all sandboxes together; more waits in the sandboxes.
const LOG_BYTES_A_LOOK: usize = 256 * 1024;

/// What is kept from one look to the next.
#[derive(Default)]
struct State {
    marks: HashMap<SandboxId, Mark>,
    /// Sandboxes whose logs may have something new, those that wait for longest first.
    unread: VecDeque<SandboxId>,
}

pub(crate) async fn run(node: Arc<Inner>) {
    let mut state = State::default();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for look in 0_u32.. {
        ticks.tick().await;
        if node.is_empty() {
            state = State::default();
            continue;
        }
        let seen = match node.runtime.look().await {
            Ok(seen) => seen,
            Err(failed) => {
                let error = chain(&failed);
                warn!(error, "cannot look at the sandboxes");
                continue;
            }
        };
        state.note(&seen);
        if !node.events.is_watched() {
            continue;
        }
        node.pass_on_memory_kills(&seen);
        read_logs(&node, &mut state.unread);
        let marks = &mut state.marks;
        let resting = node.resting();
        mark_resting(marks, &resting, &seen);
        let mut due = if look % LOOKS_A_ROUND == 0 {
            let due = node.sampled(|_| true);
            let running: HashSet<_> = due.iter().map(|one| &one.sandbox).collect();
            marks.retain(|sandbox, _| running.contains(sandbox) || resting.contains(sandbox));
            due
        } else {
            node.sampled(|sandbox| !marks.contains_key(sandbox))
        };
        let now = steady::now();
        due.retain(|one| now.duration_since(one.started_at).unsigned_abs() >= AGE_MIN);
        take(&node, marks, &due, &seen);
    }
}

/// What a paused sandbox is measured from once it goes on: not from before its pause.
fn mark_resting(marks: &mut HashMap<SandboxId, Mark>, resting: &HashSet<SandboxId>, seen: &[Seen]) {
    let now = Instant::now();
    for one in seen.iter().filter(|one| resting.contains(&one.sandbox)) {
        let mark = Mark {
            at: now,
            cpu_time: one.consumption.cpu_time,
        };
        marks.insert(one.sandbox.clone(), mark);
    }
}

impl State {
    fn note(&mut self, seen: &[Seen]) {
        // Nobody writes to its log without doing something.
        let waiting: HashSet<_> = self.unread.iter().cloned().collect();
        let stirred = seen.iter().filter(|one| one.stirred);
        let new = stirred.filter(|one| !waiting.contains(&one.sandbox));
        self.unread.extend(new.map(|one| one.sandbox.clone()));
    }
}

/// In turn, until all are read or it is enough for this look.
fn read_logs(node: &Inner, unread: &mut VecDeque<SandboxId>) {
    let mut left = LOG_BYTES_A_LOOK;
    for _ in 0..unread.len() {
        let Some(sandbox) = unread.pop_front() else {
            return;
        };
        let read = node.read_log(&sandbox);
        if read >= LOG_BYTES_MAX / 2 {
            unread.push_back(sandbox);
        }
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}

impl Inner {
    /// Hands on what a sandbox wrote to its log since the last time; how many bytes.
    pub(crate) fn read_log(&self, sandbox: &SandboxId) -> usize {
        let lines = self.runtime.log(sandbox);
        if lines.is_empty() {
            return 0;
        }
        let (read, at) = (lines.len(), Timestamp::now());
        if let Some((team, since)) = self.note_log_read(sandbox, at) {
            self.events.publish(NodeEvent::Log {
                sandbox: sandbox.clone(),
                team,
                since,
                at,
                lines,
            });
        }
        read
    }
}

fn take(node: &Inner, marks: &mut HashMap<SandboxId, Mark>, due: &[Sampled], seen: &[Seen]) {
    if due.is_empty() {
        return;
    }
    let seen: HashMap<_, _> = seen
        .iter()
        .map(|one| (&one.sandbox, &one.consumption))
        .collect();
    let (at, now) = (Timestamp::now(), Instant::now());
    let mut samples = Vec::with_capacity(due.len());
    for one in due {
        let Some(consumed) = seen.get(&one.sandbox) else {
            continue;
        };
        let mark = Mark {
            at: now,
            cpu_time: consumed.cpu_time,
        };
        let before = marks.insert(one.sandbox.clone(), mark);
        let before = before.map(|mark| (now - mark.at, mark.cpu_time));
        // Its first sample is about all of its life: a mean, also of one that was taken over.
        let life = steady::now().duration_since(one.started_at).unsigned_abs();
        let (span, cpu_time) = before.unwrap_or((life, Duration::ZERO));
        let spent = consumed.cpu_time.saturating_sub(cpu_time);
        samples.push(Sample {
            sandbox: one.sandbox.clone(),
            team: one.team.clone(),
            at,
            usage: usage(one, consumed, spent, span),
        });
    }
    for some in samples.chunks(BATCH_MAX) {
        node.events.publish(NodeEvent::Samples(some.to_vec()));
    }
}

fn usage(one: &Sampled, consumed: &Consumption, spent: Duration, span: Duration) -> Usage {
    let resources = &one.resources;
    let most = span.as_secs_f64() * f64::from(resources.vcpus.max(1));
    let percent = spent.as_secs_f64() / most.max(f64::EPSILON) * 100.0;
    Usage {
        vcpus: resources.vcpus,
        // The clocks of the two readings are not the same.
        cpu_used_percent: percent.clamp(0.0, 100.0),
        memory_used_bytes: consumed.memory_used_bytes,
        memory_total_bytes: u64::from(resources.memory_mib) << 20,
        memory_cache_bytes: consumed.memory_cache_bytes,
        disk_used_bytes: consumed.disk_used_bytes.unwrap_or(0),
        disk_total_bytes: u64::from(resources.disk_mib) << 20,
    }
}
