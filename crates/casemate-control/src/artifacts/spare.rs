//! What of a node's layers and files lies in the bucket too: it may go from the node where its room is
//! wanted, and comes back with the next create that names it.

use casemate_types::Portable;

use super::{ASKED_MAX, CarryError};
use crate::Control;
use crate::nodes::Node;

/// Says it to the node, which believes it for some minutes. A row goes from the store before what it names
/// goes from the bucket, and both only when nothing needs it.
pub(super) async fn tell(
    control: &Control,
    node: &Node,
    there: &[Portable],
) -> Result<(), CarryError> {
    let evicts = node
        .heard()
        .info
        .as_ref()
        .is_some_and(|info| info.cache.is_some());
    // Without a carrier nothing would come back.
    if node.carrier.is_none() || !evicts {
        return Ok(());
    }
    for asked in there.chunks(ASKED_MAX) {
        let found = control.store.artifact_find(asked).await?;
        let whats: Vec<Portable> = found.into_iter().map(|row| row.what).collect();
        if !whats.is_empty() {
            node.port.stored(&whats).await?;
        }
    }
    Ok(())
}
