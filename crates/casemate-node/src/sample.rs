//! Samples of all running sandboxes, on the watch.
//!
//! One task for all of them: a reading of hundreds is one call of the runtime and one message.
//! Nothing is read while nobody watches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::NodeEvent;
use casemate_runtime::Consumption;
use casemate_types::{Sample, SandboxId, Timestamp, Usage};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::node::{Inner, Sampled};

/// Looks of which every one takes in those that have no sample yet …
const LOOK: Duration = Duration::from_secs(1);
/// … and one in so many all others.
const LOOKS_A_ROUND: u32 = 5;
/// A sandbox younger than this is not looked at yet: its start is no measure.
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
        if !node.events.is_watched() {
            continue;
        }
        let mut due = node.sampled();
        if look % LOOKS_A_ROUND == 0 {
            let running: HashSet<_> = due.iter().map(|one| &one.sandbox).collect();
            marks.retain(|sandbox, _| running.contains(sandbox));
        } else {
            due.retain(|one| !marks.contains_key(&one.sandbox));
        }
        let now = Timestamp::now();
        due.retain(|one| now.duration_since(one.started_at).unsigned_abs() >= AGE_MIN);
        for some in due.chunks(BATCH_MAX) {
            take(&node, &mut marks, some).await;
        }
    }
}

async fn take(node: &Inner, marks: &mut HashMap<SandboxId, Mark>, some: &[Sampled]) {
    let ids: Vec<_> = some.iter().map(|one| one.sandbox.clone()).collect();
    let read = match node.runtime.consumption(&ids).await {
        Ok(read) => read,
        Err(failed) => {
            let error = crate::node::chain(&failed);
            return warn!(error, "cannot read what sandboxes use");
        }
    };
    let (at, now) = (Timestamp::now(), Instant::now());
    let mut samples = Vec::with_capacity(some.len());
    for (one, consumed) in some.iter().zip(read) {
        let Some(consumed) = consumed else { continue };
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
            usage: usage(one, &consumed, spent, span),
        });
    }
    if !samples.is_empty() {
        node.events.publish(NodeEvent::Samples(samples));
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
