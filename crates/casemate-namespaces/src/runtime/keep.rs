//! Keeping what sandboxes wrote: of one that goes on, of one that ends for it, of one that ended.
//!
//! ```text
//! take:     sync ─▶ freeze ─▶ copy its layer ─▶ thaw ─▶ keep the copy
//! suspend:  sync ─▶ freeze ─▶ keep its layer ─▶ end its processes ─▶ give the slot back
//! salvage:  sync ─▶ keep its layer                          before the sweep
//! ```
//!
//! What is dirty is written while it runs, so that little is left to write while it stands still.
//! Room is what may be missing, and it is found before anything is ended: a layer can be kept under
//! its sandbox, whose processes do nothing any more.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_failpoint::{self as failpoint, Point};
use casemate_runtime::{RuntimeError, RuntimeRecord, SnapshotError, Taken};
use casemate_types::{SandboxId, SnapshotId};

use super::adopt::{self, layers_of_running};
use super::{Entry, Running, Shared, freeze, lock, stop};
use crate::pool::Layer;
use crate::record::Facts;
use crate::step::{Step, StepError};

pub(super) async fn take(
    shared: &Arc<Shared>,
    sandbox: &SandboxId,
    snapshot: &SnapshotId,
) -> Result<Taken, SnapshotError> {
    let running = running(shared, sandbox)?;
    let (taker, id) = (Arc::clone(shared), snapshot.clone());
    blocking(snapshot, move || take_now(&taker, &running, &id)).await
}

fn take_now(shared: &Shared, running: &Running, id: &SnapshotId) -> Result<Taken, StepError> {
    let pool = &shared.pool;
    is_free(shared, id)?;
    pool.sync().step("write the sandbox's files to disk")?;
    let (copied, frozen) = match shared.cgroups.is_frozen(&running.group) {
        Ok(true) => (pool.copy(&running.layer), Duration::ZERO),
        _ => copy_frozen(shared, running)?,
    };
    let copy = copied.step("copy the sandbox's files")?;
    failpoint::hit(Point::SnapshotMade);
    pool.keep_copy(&copy, id).step("keep the snapshot")?;
    failpoint::hit(Point::SnapshotKept);
    // It is kept, whatever is known of it.
    let bytes = pool.holds(id).unwrap_or_else(|error| {
        let cause = error.to_string();
        tracing::warn!(snapshot.id = %id, cause, "the size of {id} is not known");
        0
    });
    Ok(Taken {
        frozen,
        bytes,
        is_shared: pool.snapshots_share(),
    })
}

/// Of one that runs, and does so afterwards whatever came of it.
fn copy_frozen(
    shared: &Shared,
    running: &Running,
) -> Result<(io::Result<Layer>, Duration), StepError> {
    let begun = Instant::now();
    let frozen = shared.cgroups.freeze(&running.group, freeze::PATIENCE);
    frozen.step("hold the sandbox still")?;
    failpoint::hit(Point::SnapshotFrozen);
    let copied = shared.pool.copy(&running.layer);
    let thawed = shared.cgroups.thaw(&running.group);
    let frozen = begun.elapsed();
    if let (Err(_), Ok(copy)) = (&thawed, &copied) {
        shared.pool.discard(copy);
    }
    thawed.step("let the sandbox go on")?;
    Ok((copied, frozen))
}

pub(super) async fn suspend(
    shared: &Arc<Shared>,
    sandbox: &SandboxId,
    snapshot: &SnapshotId,
) -> Result<(), SnapshotError> {
    let running = running(shared, sandbox)?;
    // Once its layer is gone it was cut off here: what has its name is its own.
    if shared.pool.contains(&running.layer) {
        is_free(shared, snapshot).map_err(|error| refused(snapshot, error))?;
    }
    let not_found = || SnapshotError::NotFound(sandbox.clone());
    let had_ended = running.has_ended();
    let running = stop::begin(shared, sandbox).ok_or_else(not_found)?;
    match keep_and_end(shared, &running, snapshot).await {
        Ok(()) => {
            lock(&shared.table).remove(sandbox);
            Ok(())
        }
        Err(error) => {
            // It is still there, so that it can be suspended again.
            lock(&shared.table).insert(sandbox.clone(), Entry::Running(Arc::clone(&running)));
            if !had_ended && running.has_ended() {
                // Whoever watches it took that for ours.
                shared.tell_exit(sandbox);
            }
            Err(error)
        }
    }
}

/// Also when that had been done but for the last of it.
async fn keep_and_end(
    shared: &Arc<Shared>,
    running: &Arc<Running>,
    snapshot: &SnapshotId,
) -> Result<(), SnapshotError> {
    let (keeper, one, id) = (Arc::clone(shared), Arc::clone(running), snapshot.clone());
    blocking(snapshot, move || keep_under(&keeper, &one, &id)).await?;
    failpoint::hit(Point::SuspendKept);
    stop::end_processes(shared, running).await.map_err(ended)?;
    failpoint::hit(Point::SuspendStopped);
    stop::give_back(shared, running).await.map_err(ended)
}

/// Keeps the layer of a sandbox that is there. On an error before that is done it is as it was.
fn keep_under(shared: &Shared, running: &Running, id: &SnapshotId) -> Result<(), StepError> {
    let pool = &shared.pool;
    let runs = pool.contains(&running.layer)
        && !running.has_ended()
        && !shared.cgroups.is_frozen(&running.group).unwrap_or(false);
    if runs {
        pool.sync().step("write the sandbox's files to disk")?;
        let frozen = shared.cgroups.freeze(&running.group, freeze::PATIENCE);
        frozen.step("hold the sandbox still")?;
    }
    let kept = keep_now(shared, &running.layer, id);
    if kept.is_err() && pool.contains(&running.layer) {
        let machine = running.facts.machine.as_ref();
        let limited = match machine.and_then(|machine| machine.disk_bytes) {
            Some(bytes) => pool.limit(&running.layer, bytes),
            None => Ok(()),
        };
        if runs {
            let thawed = shared.cgroups.thaw(&running.group);
            thawed.step("let the sandbox go on")?;
        }
        // Not for want of room: it is not as it was.
        let limited = limited.map_err(io::Error::other);
        limited.step("bound the sandbox's files again")?;
    }
    kept
}

/// Also when that had been done but for the last of it.
fn keep_now(shared: &Shared, layer: &Layer, id: &SnapshotId) -> Result<(), StepError> {
    let pool = &shared.pool;
    let kept = match pool.contains(layer) {
        true => pool.keep(layer, id),
        false if pool.is_kept(id) => pool.settle(),
        false => Err(io::ErrorKind::NotFound.into()),
    };
    kept.step("keep the sandbox's files")
}

async fn keep(
    shared: &Arc<Shared>,
    layer: &Layer,
    snapshot: &SnapshotId,
) -> Result<(), SnapshotError> {
    let (keeper, layer, id) = (Arc::clone(shared), layer.clone(), snapshot.clone());
    blocking(snapshot, move || keep_now(&keeper, &layer, &id)).await
}

pub(super) async fn salvage(
    shared: &Arc<Shared>,
    record: &RuntimeRecord,
    snapshot: &SnapshotId,
) -> Result<bool, SnapshotError> {
    if shared.pool.is_kept(snapshot) {
        let settler = Arc::clone(shared);
        let settle = move || settler.pool.settle().step("keep the snapshot");
        return blocking(snapshot, settle).await.map(|()| true);
    }
    let facts = Facts::of(record).step("read the sandbox's record");
    let facts = facts.map_err(|error| refused(snapshot, error))?;
    let Some(layer) = left_of(shared, &facts) else {
        return Ok(false);
    };
    let kept = match adopt::end_what_is_left(shared, &facts, &record.sandbox).await {
        Ok(()) => keep(shared, &layer, snapshot).await,
        Err(error) => Err(ended(error)),
    };
    // The sweep comes next, and what could not be kept now may be later.
    match &kept {
        Ok(()) => lock(&shared.spared).remove(&layer),
        Err(_) => lock(&shared.spared).insert(layer),
    };
    kept.map(|()| true)
}

/// Its layer, if it is there and nobody's else.
fn left_of(shared: &Shared, facts: &Facts) -> Option<Layer> {
    let layer = Layer::parse(&facts.layer)?;
    let is_left = shared.pool.contains(&layer) && !layers_of_running(shared).contains(&layer);
    is_left.then_some(layer)
}

fn running(shared: &Shared, sandbox: &SandboxId) -> Result<Arc<Running>, SnapshotError> {
    shared
        .running(sandbox)
        .ok_or_else(|| SnapshotError::NotFound(sandbox.clone()))
}

fn is_free(shared: &Shared, snapshot: &SnapshotId) -> Result<(), StepError> {
    match shared.pool.is_kept(snapshot) {
        true => Err(io::Error::from(io::ErrorKind::AlreadyExists)).step("name the snapshot"),
        false => Ok(()),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    snapshot: &SnapshotId,
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, SnapshotError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| refused(snapshot, error)),
        Err(error) => Err(SnapshotError::Step {
            step: "work on the snapshot",
            source: error.into(),
        }),
    }
}

fn refused(snapshot: &SnapshotId, error: StepError) -> SnapshotError {
    match error.source.kind() {
        io::ErrorKind::AlreadyExists => SnapshotError::Exists(snapshot.clone()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            SnapshotError::Capacity(snapshot.clone())
        }
        _ => SnapshotError::Step {
            step: error.step,
            source: error.source.into(),
        },
    }
}

/// Of ending a sandbox.
fn ended(error: RuntimeError) -> SnapshotError {
    match error {
        RuntimeError::NotFound(sandbox) => SnapshotError::NotFound(sandbox),
        RuntimeError::Step { step, source } => SnapshotError::Step { step, source },
    }
}
