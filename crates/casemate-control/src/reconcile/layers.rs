//! Read-only layers that a node has and nothing needs: of builds that failed, templates that were
//! deleted, caches that expired.

use std::sync::Arc;

use casemate_rpc::{NodeError, SNAPSHOTS_PAGE};
use casemate_types::{LayerId, chain};

use super::ReconcileError;
use crate::Control;
use crate::nodes::Node;

pub(super) async fn drop_unwanted_or_warn(control: &Arc<Control>, node: &Node) {
    if let Err(error) = drop_unwanted(control, node).await {
        tracing::warn!(
            error = chain(&error),
            "could not look for layers that nobody wants; trying again later"
        );
    }
}

async fn drop_unwanted(control: &Arc<Control>, node: &Node) -> Result<(), ReconcileError> {
    let mut after: Option<LayerId> = None;
    let mut look = control.aging.look("layers", &node.name);
    loop {
        let page = node.port.layers(after.as_ref()).await?;
        // Before the rows are read: what gets one meanwhile is in one of the two.
        let free: Vec<LayerId> = page
            .iter()
            .filter(|layer| !control.builder.held().has_layer(layer))
            .cloned()
            .collect();
        let wanted = control.store.layer_wanted(&free).await?;
        for layer in free.iter().filter(|layer| !wanted.contains(layer)) {
            // A build may have found it before its row went.
            if control.builder.held().has_layer(layer) {
                continue;
            }
            if !control.may_sweep(&mut look, layer.as_str()).await? {
                continue;
            }
            match node.port.remove_layer(layer).await {
                Ok(()) => {
                    tracing::info!(layer.id = %layer, "removed layer {layer}, which nothing needs")
                }
                // A sandbox of another team, or one that is just ending.
                Err(NodeError::InUse(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match page.last() {
            Some(last) if page.len() == SNAPSHOTS_PAGE => after = Some(last.clone()),
            Some(_) | None => {
                look.done();
                return Ok(());
            }
        }
    }
}
