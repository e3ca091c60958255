//! What builds under way rest on stays at nodes, which know no builds: between two of its sandboxes nothing
//! else says that it is needed.

use std::sync::Arc;
use std::time::Duration;

use casemate_types::{LayerId, chain};

use crate::Control;
use crate::nodes::Node;

/// Well within the time for which a node holds it.
const HOLD_EVERY: Duration = Duration::from_secs(45);

/// For ever, beside what follows the node. A build says itself what it begins with; this goes on with it.
pub(super) async fn run(control: &Arc<Control>, node: &Arc<Node>) {
    let by = format!("builds of {}", control.owner);
    loop {
        tokio::time::sleep(HOLD_EVERY).await;
        let layers = control.builder.held().layers();
        if layers.is_empty() || node.heard().connection.is_none() {
            continue;
        }
        let names: Vec<String> = layers.iter().map(LayerId::to_string).collect();
        // What it lacks is at another one, where the build is.
        if let Err(error) = node.port.missing(&names, None, Some(&by)).await {
            tracing::debug!(
                node = node.name,
                error = chain(&error),
                "node {} was not told what builds rest on",
                node.name
            );
        }
    }
}
