//! Tells the node which of its sandboxes have rows: what it then still has without one is of a
//! create that a crash cut off (`orphans`).
//!
//! Beside the creates and many at once: nobody waits for it. What a failure loses is told again
//! after the next watch began, because the node then names what it was not told.

use std::collections::BTreeMap;
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
pub(crate) struct Records(mpsc::UnboundedSender<Row>);

/// A sandbox that has a row, and where it is.
pub(crate) struct Row {
    node: String,
    sandbox: SandboxId,
}

impl Records {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Row>) {
        let (rows, waiting) = mpsc::unbounded_channel();
        (Self(rows), waiting)
    }

    /// A sandbox has a row, and the node does not know.
    pub(crate) fn note(&self, node: &str, sandbox: &SandboxId) {
        let row = Row {
            node: node.to_owned(),
            sandbox: sandbox.clone(),
        };
        // Nobody listens while control ends; then the next one tells.
        let _ = self.0.send(row);
    }
}

/// For ever.
pub(crate) async fn tell(control: Arc<Control>, mut waiting: mpsc::UnboundedReceiver<Row>) {
    let mut rows = Vec::new();
    while waiting.recv_many(&mut rows, BATCH).await > 0 {
        tokio::time::sleep(GATHER).await;
        while let Ok(more) = waiting.try_recv() {
            rows.push(more);
        }
        let mut by_node: BTreeMap<String, Vec<SandboxId>> = BTreeMap::new();
        for row in rows.drain(..) {
            by_node.entry(row.node).or_default().push(row.sandbox);
        }
        for (name, sandboxes) in by_node {
            // One that is gone names them when it is back.
            let Ok(node) = control.nodes.get(&name) else {
                continue;
            };
            for some in sandboxes.chunks(BATCH) {
                match node.port.recorded(some).await {
                    // No event says so.
                    Ok(()) => node.there.note_recorded(some),
                    Err(error) => tracing::warn!(
                        node = name,
                        error = chain(&error),
                        "node {name} does not know yet which sandboxes have rows"
                    ),
                }
            }
        }
    }
}
