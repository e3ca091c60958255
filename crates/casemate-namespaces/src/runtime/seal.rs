//! Read-only layers made of snapshots.

use std::io;
use std::sync::Arc;

use casemate_runtime::SnapshotError;
use casemate_types::{LayerId, SnapshotId};

use super::Shared;

/// Layers that are copied at once; others wait. They share one disk with all that sandboxes do.
pub(super) const AT_ONCE: usize = 1;

pub(super) async fn seal(
    shared: &Arc<Shared>,
    snapshot: &SnapshotId,
    layer: &LayerId,
) -> Result<u64, SnapshotError> {
    let step = "seal a layer";
    let turn = shared.seals.acquire().await;
    let _turn = turn.map_err(|closed| failed(step, io::Error::other(closed)))?;
    let (pool, id, name) = (Arc::clone(&shared.pool), snapshot.clone(), layer.clone());
    let sealed = tokio::task::spawn_blocking(move || pool.seal(&id, &name)).await;
    let sealed = sealed.unwrap_or_else(|abandoned| Err(io::Error::other(abandoned)));
    sealed.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SnapshotError::NoSnapshot(snapshot.clone()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            SnapshotError::Capacity(snapshot.clone())
        }
        _ => failed(step, error),
    })
}

/// Runs blocking work elsewhere and names it when it fails.
pub(super) async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SnapshotError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|abandoned| Err(io::Error::other(abandoned)));
    done.map_err(|error| failed(step, error))
}

fn failed(step: &'static str, error: io::Error) -> SnapshotError {
    SnapshotError::Step {
        step,
        source: error.into(),
    }
}
