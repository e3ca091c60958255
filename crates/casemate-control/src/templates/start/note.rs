//! Noting the end of a build in a store that is busy or full.

use std::future::Future;
use std::time::Duration;

use casemate_store::StoreError;
use casemate_types::chain;

use crate::tasks::Tasks;

const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A build whose end was not noted would never end, for whoever waits for it and for the limit of
/// builds: so it is tried until it is done, or the process ends. Whoever starts next fails what was
/// left.
pub(super) async fn again<T, F>(tasks: &Tasks, mut work: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = PAUSE_FIRST;
    loop {
        let error = match work().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if tasks.stopping() {
            return Err(error);
        }
        tracing::warn!(
            error = chain(&error),
            "could not note the end of a build; trying again"
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = tasks.stopped() => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn failing(tries: &AtomicU32, until: u32) -> Result<(), StoreError> {
        match tries.fetch_add(1, Ordering::Relaxed) + 1 >= until {
            true => Ok(()),
            false => Err(StoreError::Conflict {
                what: "build",
                id: "x".into(),
            }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_build_is_noted_however_long_the_store_fails() {
        let (tasks, tries) = (Tasks::default(), AtomicU32::new(0));
        let noted = again(&tasks, async || failing(&tries, 100)).await;
        assert!(noted.is_ok(), "{noted:?}");
        assert_eq!(tries.load(Ordering::Relaxed), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_ends_does_not_wait_for_the_store() {
        let (tasks, tries) = (Tasks::default(), AtomicU32::new(0));
        let noting = again(&tasks, async || failing(&tries, u32::MAX));
        let (noted, ()) = tokio::join!(noting, async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            tasks.shutdown().await;
        });
        assert!(noted.is_err());
    }
}
