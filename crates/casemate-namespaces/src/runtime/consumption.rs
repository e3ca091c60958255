//! What running sandboxes have consumed, read as seldom as possible.
//!
//! A sandbox whose processor time has not moved did nothing: its memory and its disk are what they
//! were, but for what the kernel does on its own. So a calm one costs one small file, and hundreds
//! of calm ones next to nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_runtime::{Consumption, DiskLimit, RuntimeError};
use casemate_types::SandboxId;

use super::{Running, Shared, blocking, lock};

/// A sandbox is calm when its processor time has stood still this long: what it wrote before is
/// counted by then, half a minute until the kernel writes it out and as much until that is final.
const CALM_AFTER: Duration = Duration::from_secs(120);
/// The kernel takes memory back from calm ones too: they are looked at this often all the same.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// What was read of a sandbox last.
#[derive(Debug)]
pub(super) struct Look {
    figures: Consumption,
    moved: Instant,
    read: Instant,
}

pub(super) async fn consumption(
    shared: &Arc<Shared>,
    sandboxes: &[SandboxId],
) -> Result<Vec<Option<Consumption>>, RuntimeError> {
    let running: Vec<_> = sandboxes.iter().map(|id| shared.running(id)).collect();
    let shared = Arc::clone(shared);
    blocking("read what sandboxes consume", move || {
        let read = |running: Option<Arc<Running>>| running.and_then(|one| look(&shared, &one));
        Ok::<_, std::convert::Infallible>(running.into_iter().map(read).collect())
    })
    .await
}

/// `None` when it ended while we looked.
fn look(shared: &Shared, running: &Running) -> Option<Consumption> {
    let mut last = lock(&running.look);
    let now = Instant::now();
    let cpu_time = shared.cgroups.cpu_time(&running.group).ok()?;
    let mut moved = now;
    if let Some(look) = &*last {
        if look.figures.cpu_time == cpu_time {
            moved = look.moved;
        }
        if moved + CALM_AFTER <= now && now < look.read + LOOK_AGAIN {
            return Some(look.figures);
        }
    }
    let memory = shared.cgroups.memory(&running.group).ok()?;
    let counted = shared.pool.disk_limit() == DiskLimit::Enforced;
    let disk_used_bytes = match counted {
        true => shared.pool.used_bytes(&running.layer).ok(),
        false => None,
    };
    let figures = Consumption {
        cpu_time,
        memory_used_bytes: memory.used,
        memory_cache_bytes: memory.cache,
        disk_used_bytes,
    };
    *last = Some(Look {
        figures,
        moved,
        read: now,
    });
    Some(figures)
}
