//! Holding sandboxes where they are, and letting them go on.
//!
//! That one is frozen is known by its control group alone: whoever takes it over finds it so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use casemate_runtime::{Frozen, RuntimeError};
use casemate_types::SandboxId;

use super::{Running, Shared, blocking};

/// How long its processes may take to stand still; one that sits in the kernel (a dead disk) may
/// not.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn freeze(
    shared: &Arc<Shared>,
    sandbox: &SandboxId,
) -> Result<Frozen, RuntimeError> {
    let running = living(shared, sandbox)?;
    let shared = Arc::clone(shared);
    blocking("freeze the sandbox", move || -> io::Result<_> {
        let cgroups = &shared.cgroups;
        cgroups.freeze(&running.group, PATIENCE)?;
        let memory = cgroups.meter(&running.group).and_then(|meter| meter.read());
        let memory = match memory {
            Ok(usage) => usage.memory,
            Err(error) => {
                cgroups.thaw(&running.group)?;
                return Err(error);
            }
        };
        Ok(Frozen {
            memory_bytes: memory.used - memory.cache(),
        })
    })
    .await
}

pub(super) async fn thaw(shared: &Arc<Shared>, sandbox: &SandboxId) -> Result<(), RuntimeError> {
    let running = living(shared, sandbox)?;
    let shared = Arc::clone(shared);
    blocking("thaw the sandbox", move || {
        shared.cgroups.thaw(&running.group)
    })
    .await
}

/// One that has ended may still be known: nothing of it stands still or goes on.
fn living(shared: &Shared, sandbox: &SandboxId) -> Result<Arc<Running>, RuntimeError> {
    shared
        .running(sandbox)
        .filter(|running| !running.has_ended())
        .ok_or_else(|| RuntimeError::NotFound(sandbox.clone()))
}
