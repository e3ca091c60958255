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

/// The work was cut off: it panicked (which is logged) or the process is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task ended without a result")]
pub struct TaskLost;

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
        self.spawn(TaskKind::Request, async move {
            // Nobody may wait any more: the work was done all the same.
            let _ = done.send(work.await);
        });
        result.await.map_err(|_| TaskLost)
    }

    /// Whether shutdown began.
    pub fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Stops the reconcilers and waits for everything else.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
