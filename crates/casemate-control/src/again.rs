//! What has to be done, and is tried until it is: the store may be busy, full or away.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use casemate_types::chain;

use crate::tasks::Tasks;

const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Tries it until it is done, or the process ends: it is left to whoever starts next, or watches over
/// those that end. `failed` says what could not be done.
pub(crate) async fn again<T, E, F>(
    tasks: &Tasks,
    failed: &'static str,
    mut work: impl FnMut() -> F,
) -> Result<T, E>
where
    E: Error,
    F: Future<Output = Result<T, E>>,
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
        tracing::warn!(error = chain(&error), "{failed}; trying again");
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

    use casemate_store::StoreError;

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
    async fn it_is_done_however_long_the_store_fails() {
        let (tasks, tries) = (Tasks::default(), AtomicU32::new(0));
        let noted = again(&tasks, "it failed", async || failing(&tries, 100)).await;
        assert!(noted.is_ok(), "{noted:?}");
        assert_eq!(tries.load(Ordering::Relaxed), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_ends_does_not_wait_for_the_store() {
        let (tasks, tries) = (Tasks::default(), AtomicU32::new(0));
        let noting = again(&tasks, "it failed", async || failing(&tries, u32::MAX));
        let (noted, ()) = tokio::join!(noting, async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            tasks.shutdown().await;
        });
        assert!(noted.is_err());
    }
}
