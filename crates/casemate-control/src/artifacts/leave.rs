//! From a node to the bucket: what ready builds and snapshots need.

use std::collections::HashSet;
use std::sync::Arc;

use casemate_rpc::carrier::{CarrierError, StoreRequest};
use casemate_store::StoredArtifact;
use casemate_types::{Portable, TeamId, chain};

use super::{ASKED_MAX, CarryError};
use crate::Control;
use crate::nodes::Node;

/// Stores what is due of what is `there`, one after the other: a disk and a line are shared by all that
/// sandboxes do. `stored` remembers what need not be asked again. What cannot be stored now is found by
/// the next look; the bucket's loss ends this one.
pub(super) async fn store_due(
    control: &Control,
    node: &Arc<Node>,
    there: &[Portable],
    stored: &mut HashSet<Portable>,
) -> Result<(), CarryError> {
    if node.carrier.is_none() {
        return Ok(());
    }
    stored.retain(|what| there.contains(what));
    let unknown: Vec<Portable> = there
        .iter()
        .filter(|what| !stored.contains(*what))
        .cloned()
        .collect();
    for asked in unknown.chunks(ASKED_MAX) {
        for found in control.store.artifact_find(asked).await? {
            stored.insert(found.what);
        }
        for (what, team) in control.store.artifact_due(asked).await? {
            match store(control, node, &what, team).await {
                Ok(()) => {
                    stored.insert(what);
                }
                // It was removed meanwhile, or its files are damaged: the others may be well.
                Err(CarryError::Carrier(
                    error @ (CarrierError::NotThere { .. }
                    | CarrierError::Invalid { .. }
                    | CarrierError::Corrupt { .. }),
                )) => {
                    let failed = chain(&error);
                    control.failed_to_carry(&error.into());
                    if let Some(untold) = node.failing.one_layer.happened() {
                        tracing::warn!(
                            node = node.name,
                            untold,
                            error = failed,
                            "could not store {what}"
                        );
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

pub(super) async fn store(
    control: &Control,
    node: &Node,
    what: &Portable,
    team: TeamId,
) -> Result<(), CarryError> {
    let Some(carrier) = &node.carrier else {
        return Ok(());
    };
    let request = StoreRequest {
        what: what.clone(),
        scope: team.to_string(),
        like: None,
    };
    let put = node.failing.noted(carrier.store(request).await)?;
    let artifact = StoredArtifact {
        what: what.clone(),
        team,
        artifact: put.artifact,
        bytes: put.bytes,
    };
    let (bytes, bytes_sent) = (put.bytes, put.bytes_sent);
    // Of another node that has it too: the first one stays, and the sweep takes this one's manifest.
    if control.store.artifact_put(&artifact).await? {
        tracing::info!(
            node = node.name,
            bytes,
            bytes_sent,
            "stored {what} in the bucket"
        );
    }
    Ok(())
}
