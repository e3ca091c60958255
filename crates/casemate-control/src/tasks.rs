//! Every task that control starts, so that a shutdown can wait for it.

use std::future::Future;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a task is for, and so what becomes of it at shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Carries a change that a client asked for: runs to its end whether or not the client
    /// waits; shutdown waits for it.
    Request,
    /// Undoes what a failed change left, or notes something; shutdown waits for it.
    Cleanup,
    /// Runs for ever; ends when told to.
    Reconciler,
}

/// The work was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskLost {
    /// Which is logged.
    #[error("the task panicked")]
    Panicked,
    /// Of its tasks one after the other is dropped, those that answer clients maybe last.
    #[error("the process is ending")]
    Ending,
}

/// Tells how a task came to its end without a result.
struct Witness<T>(Option<oneshot::Sender<Result<T, TaskLost>>>);

impl<T> Witness<T> {
    fn tell(&mut self, result: Result<T, TaskLost>) {
        if let Some(done) = self.0.take() {
            // Nobody may wait any more: the work was done all the same.
            let _ = done.send(result);
        }
    }
}

impl<T> Drop for Witness<T> {
    fn drop(&mut self) {
        self.tell(Err(match std::thread::panicking() {
            true => TaskLost::Panicked,
            false => TaskLost::Ending,
        }));
    }
}

/// See the module.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    pub fn spawn(&self, kind: TaskKind, work: impl Future<Output = ()> + Send + 'static) {
        match kind {
            TaskKind::Request | TaskKind::Cleanup => drop(self.tracker.spawn(work)),
            TaskKind::Reconciler => {
                let stop = self.stop.clone();
                self.tracker.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = work => {}
                    }
                });
            }
        }
    }

    /// Runs `work` to its end even when the caller is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future loses the result only.
    pub async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, TaskLost> {
        let (done, result) = oneshot::channel();
        let mut witness = Witness(Some(done));
        self.spawn(TaskKind::Request, async move {
            let done = work.await;
            witness.tell(Ok(done));
        });
        result.await.unwrap_or(Err(TaskLost::Ending))
    }

    /// Whether shutdown began.
    pub fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Returns once shutdown begins.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Stops the reconcilers; what else is under way goes on.
    pub(crate) fn halt(&self) {
        self.stop.cancel();
    }

    /// Stops the reconcilers and waits for everything else.
    pub async fn shutdown(&self) {
        self.halt();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_told_how_the_work_was_cut_off() {
        let tasks = Tasks::default();
        assert_eq!(tasks.detached(async { 1 }).await, Ok(1));
        let panics = async { panic!("on purpose") };
        assert_eq!(tasks.detached::<u8>(panics).await, Err(TaskLost::Panicked));
        let ending = tokio::task::spawn_blocking(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime");
            let tasks = Tasks::default();
            let mut waits =
                Box::pin(async move { tasks.detached::<u8>(std::future::pending()).await });
            runtime.block_on(std::future::poll_fn(|context| {
                assert!(waits.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(())
            }));
            // As at the end of a process: the task goes before whoever waits for it.
            drop(runtime);
            waits
        });
        let waits = ending.await.expect("it does not panic");
        assert_eq!(waits.await, Err(TaskLost::Ending));
    }
}
