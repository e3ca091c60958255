//! Tells the node which of its sandboxes have rows: what it then still has without one is of a
//! create that a crash cut off (`orphans`).
//!
//! Beside the creates and many at once: nobody waits for it. What a failure loses is told again
//! after the next watch began, because the node then names what it was not told.

use std::sync::Arc;
use std::time::Duration;

use casemate_types::{SandboxId, chain};
use tokio::sync::mpsc;

use crate::Control;

/// How long rows are gathered: a burst of creates is over by then.
const GATHER: Duration = Duration::from_secs(1);
/// Rows told in one call, some 25 bytes each.
const BATCH: usize = 4096;

/// Where rows wait to be told of.
pub(crate) struct Records(mpsc::UnboundedSender<SandboxId>);

impl Records {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<SandboxId>) {
        let (rows, waiting) = mpsc::unbounded_channel();
        (Self(rows), waiting)
    }

    /// A sandbox has a row, and the node does not know.
    pub(crate) fn note(&self, sandbox: &SandboxId) {
        // Nobody listens while control ends; then the next one tells.
        let _ = self.0.send(sandbox.clone());
    }
}

/// For ever.
pub(crate) async fn tell(control: Arc<Control>, mut waiting: mpsc::UnboundedReceiver<SandboxId>) {
    let mut rows = Vec::new();
    while waiting.recv_many(&mut rows, BATCH).await > 0 {
        tokio::time::sleep(GATHER).await;
        while let Ok(more) = waiting.try_recv() {
            rows.push(more);
        }
        for some in rows.chunks(BATCH) {
            if let Err(error) = control.node.recorded(some).await {
                tracing::warn!(
                    error = chain(&error),
                    "the node does not know yet which sandboxes have rows"
                );
            }
        }
        rows.clear();
    }
}
