//! The one look at all running sandboxes, every second, and the samples that fall out of it.
//!
//! One task for all of them: a look at hundreds is one call of the runtime, and its samples are one
//! message. They are made only while somebody watches. Without sandboxes nothing is looked at.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::NodeEvent;
use casemate_runtime::{Consumption, Seen};
use casemate_types::{Sample, SandboxId, Timestamp, Usage};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::node::{Inner, Sampled};

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

pub(crate) async fn run(node: Arc<Inner>) {
    let mut marks = HashMap::<SandboxId, Mark>::new();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for look in 0_u32.. {
        ticks.tick().await;
        if node.is_empty() {
            marks.clear();
            continue;
        }
        let seen = match node.runtime.look().await {
            Ok(seen) => seen,
            Err(failed) => {
                let error = crate::node::chain(&failed);
                warn!(error, "cannot look at the sandboxes");
                continue;
            }
        };
        if !node.events.is_watched() {
            continue;
        }
        let mut due = if look % LOOKS_A_ROUND == 0 {
            let due = node.sampled(|_| true);
            let running: HashSet<_> = due.iter().map(|one| &one.sandbox).collect();
            marks.retain(|sandbox, _| running.contains(sandbox));
            due
        } else {
            node.sampled(|sandbox| !marks.contains_key(sandbox))
        };
        let now = Timestamp::now();
        due.retain(|one| now.duration_since(one.started_at).unsigned_abs() >= AGE_MIN);
        take(&node, &mut marks, &due, &seen);
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
        let life = at.duration_since(one.started_at).unsigned_abs();
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
