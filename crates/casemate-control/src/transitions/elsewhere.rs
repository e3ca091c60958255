//! What other servers do to sandboxes, and are told of us.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use casemate_catalog::{LeaseTake, Leases};
use casemate_types::{SandboxId, chain};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Doing, Other, Whose};
use crate::tasks::{TaskKind, Tasks};

/// How long the others believe it of a server that died.
const LASTS: Duration = Duration::from_secs(15);
const RENEWED_EVERY: Duration = Duration::from_secs(5);
/// A catalog that cannot say when it is over is asked again after this.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Elsewhere {
    leases: Arc<dyn Leases>,
    owner: String,
    attempts: AtomicU64,
    tasks: Tasks,
}

/// The others know; dropped, it is soon over for them too.
pub(super) struct Told {
    over: DropGuard,
    /// Dropped when it is.
    given: oneshot::Receiver<()>,
}

impl Told {
    /// Returns when it is over for them, or cannot be told.
    pub(super) async fn over(self) {
        drop(self.over);
        // Nothing is sent.
        let _ = self.given.await;
    }
}

/// A lease that another server has.
pub(super) struct Anothers {
    leases: Arc<dyn Leases>,
    name: String,
}

impl Anothers {
    pub(super) async fn over(self) {
        if let Err(error) = self.leases.lease_over(&self.name).await {
            tracing::debug!(error = chain(&error), "cannot see what other servers do");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn name_of(sandbox: &SandboxId) -> String {
    format!("doing/{sandbox}")
}

impl Elsewhere {
    pub(crate) fn new(leases: Arc<dyn Leases>, owner: impl Into<String>, tasks: Tasks) -> Self {
        Self {
            leases,
            owner: owner.into(),
            attempts: AtomicU64::new(0),
            tasks,
        }
    }

    /// `Ok(None)`: they cannot be told, and it is done all the same.
    pub(super) async fn tell(
        &self,
        sandbox: &SandboxId,
        doing: Doing,
    ) -> Result<Option<Told>, Other> {
        let name = name_of(sandbox);
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        let holder = format!("{}/{attempt}", self.owner);
        let taken = self
            .leases
            .lease_take(&name, &holder, doing.state(), LASTS)
            .await;
        match taken {
            Ok(LeaseTake::Taken { .. }) => Ok(Some(self.keep(name, holder))),
            Ok(LeaseTake::Held { note, .. }) => match Doing::parse(&note) {
                Some(doing) => {
                    let leases = Arc::clone(&self.leases);
                    let whose = Whose::Anothers(Anothers { leases, name });
                    Err(Other { doing, whose })
                }
                // What a newer version does has no name here.
                None => Ok(None),
            },
            Err(error) => {
                tracing::debug!(
                    sandbox.id = %sandbox, error = chain(&error),
                    "other servers do not know what is done to {sandbox}"
                );
                Ok(None)
            }
        }
    }

    /// Renews it until it is dropped, and gives it then.
    fn keep(&self, name: String, holder: String) -> Told {
        let (leases, over) = (Arc::clone(&self.leases), CancellationToken::new());
        let (giving, given) = oneshot::channel::<()>();
        let told = Told {
            over: over.clone().drop_guard(),
            given,
        };
        self.tasks.spawn(TaskKind::Cleanup, async move {
            while tokio::time::timeout(RENEWED_EVERY, over.cancelled())
                .await
                .is_err()
            {
                // One that was lost is only not known any more.
                let _ = leases.lease_renew(&name, &holder, LASTS).await;
            }
            if let Err(error) = leases.lease_give(&name, &holder).await {
                tracing::debug!(error = chain(&error), "lease {name} runs out by itself");
            }
            drop(giving);
        });
        told
    }

    pub(super) async fn over(&self, sandbox: &SandboxId) {
        let (leases, name) = (Arc::clone(&self.leases), name_of(sandbox));
        Anothers { leases, name }.over().await;
    }
}
