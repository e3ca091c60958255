//! What builds under way rest on stays at nodes, which know no builds: between two of its sandboxes nothing
//! else says that it is needed.

use std::sync::Arc;
use std::time::Duration;

use casemate_types::{LayerId, Portable, chain};

use super::CarryError;
use crate::Control;
use crate::nodes::Node;

/// Well within the time for which a node holds it.
const HOLD_EVERY: Duration = Duration::from_secs(45);

/// For ever, beside what follows the node. A build says itself what it begins with; this goes on with it.
pub(super) async fn run(control: &Arc<Control>, node: &Arc<Node>) {
    loop {
        tokio::time::sleep(HOLD_EVERY).await;
        if node.heard().connection.is_none() {
            continue;
        }
        if let Err(error) = hold(control, node).await {
            tracing::debug!(
                node = node.name,
                error = chain(&error),
                "node {} was not told what builds rest on",
                node.name
            );
        }
    }
}

/// Of what the node has, as far as we know.
async fn hold(control: &Control, node: &Node) -> Result<(), CarryError> {
    let by = format!("builds of {}", control.owner);
    let held = control.builder.held();
    let there = Arc::clone(&node.heard().layers);
    let layers = held.layers().into_iter();
    let mut layers: Vec<String> = layers.map(|layer: LayerId| layer.to_string()).collect();
    layers.retain(|name| there.contains(name));
    if !layers.is_empty() {
        node.port.missing(&layers, None, Some(&by)).await?;
    }
    let mut files = held.files();
    files.retain(|files| there.contains(files.as_str()));
    if files.is_empty() {
        return Ok(());
    }
    // Results of steps are not in the bucket, and so go by no eviction.
    let files: Vec<Portable> = files.into_iter().map(Portable::Snapshot).collect();
    for stored in control.store.artifact_find(&files).await? {
        if let Portable::Snapshot(files) = &stored.what {
            node.port.missing(&[], Some(files), Some(&by)).await?;
        }
    }
    Ok(())
}
