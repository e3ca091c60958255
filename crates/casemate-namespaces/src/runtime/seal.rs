//! Read-only layers made of snapshots.

use std::io;
use std::sync::Arc;

use casemate_runtime::SnapshotError;
use casemate_types::{LayerId, SnapshotId};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Shared;
use crate::pool::SEALS_AT_ONCE;

/// What holds more is large.
const SMALL_BYTES: u64 = 64 << 20;

/// Who may copy: some side by side, of which one is large at most. So a small one waits for other small
/// ones alone, whose copies take a fraction of a second.
#[derive(Debug)]
pub(super) struct Lanes {
    all: Semaphore,
    /// Taken before a place among all is.
    large: Semaphore,
}

/// A place, until it is dropped.
type Place<'a> = (Option<SemaphorePermit<'a>>, SemaphorePermit<'a>);

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            all: Semaphore::new(SEALS_AT_ONCE),
            large: Semaphore::new(1),
        }
    }

    async fn enter(&self, bytes: u64) -> Result<Place<'_>, SnapshotError> {
        let closed = |closed| failed("wait for a turn to seal", io::Error::other(closed));
        let large = match bytes > SMALL_BYTES {
            true => Some(self.large.acquire().await.map_err(closed)?),
            false => None,
        };
        Ok((large, self.all.acquire().await.map_err(closed)?))
    }
}

pub(super) async fn seal(
    shared: &Arc<Shared>,
    snapshot: &SnapshotId,
    layer: &LayerId,
) -> Result<u64, SnapshotError> {
    let (pool, id) = (Arc::clone(&shared.pool), snapshot.clone());
    let holds = tokio::task::spawn_blocking(move || pool.holds(&id)).await;
    // What cannot be measured takes the lane of large ones, and its own error says why. One that is
    // missing takes no time.
    let bytes = match holds {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => 0,
        Ok(Err(_)) | Err(_) => u64::MAX,
    };
    let _place = shared.seals.enter(bytes).await?;
    let (pool, id, name) = (Arc::clone(&shared.pool), snapshot.clone(), layer.clone());
    let sealed = tokio::task::spawn_blocking(move || pool.seal(&id, &name)).await;
    let sealed = sealed.unwrap_or_else(|abandoned| Err(io::Error::other(abandoned)));
    sealed.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SnapshotError::NoSnapshot(snapshot.clone()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            SnapshotError::Capacity(snapshot.clone())
        }
        _ => failed("seal a layer", error),
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

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    const SMALL: u64 = SMALL_BYTES;
    const LARGE: u64 = SMALL_BYTES + 1;

    /// What a future has without waiting.
    fn at_once<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_small_one_waits_for_small_ones_alone() {
        let lanes = Lanes::new();
        let enter = |bytes| at_once(pin!(lanes.enter(bytes))).map(Result::unwrap);
        let large = enter(LARGE).expect("nobody is there");
        let mut second = pin!(lanes.enter(LARGE));
        assert!(at_once(second.as_mut()).is_none(), "one at a time");
        // The large one that waits holds no place.
        let small = enter(SMALL).expect("a place is free");
        assert!(enter(SMALL).is_none(), "so many at once");
        drop(small);
        drop(enter(SMALL).expect("a place is free again"));
        drop(large);
        let _second = at_once(second).expect("its turn has come");
        let _small = enter(SMALL).expect("a place is free");
    }
}
