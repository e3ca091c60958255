//! A server that stood still while it made a sandbox: the others took it for dead meanwhile, and may
//! have ended what it was making.

use casemate_types::{EndReason, SandboxId, Timestamp, steady};

use super::CreateError;
use crate::Control;
use crate::nodes::Node;
use crate::sandboxes::PlacementError;

impl Control {
    /// Refuses a sandbox that has its row but is not there any more, unless this server lived for the
    /// others all the time since the node began it. It was written first: whoever looks from then on
    /// lets it be.
    pub(in crate::sandboxes) async fn not_given_up(
        &self,
        node: &Node,
        id: &SandboxId,
        since: Timestamp,
    ) -> Result<(), CreateError> {
        let Some(shared) = self.shared() else {
            return Ok(());
        };
        let took = steady::now().duration_since(since);
        let took = std::time::Duration::try_from(took).unwrap_or_default();
        if self.servers.is_sure_for(took, shared.times.dead_after) {
            return Ok(());
        }
        // Where nobody says, the row stands, and what becomes of it is noted like any other end.
        if !matches!(node.port.locate(id).await, Ok(None)) {
            return Ok(());
        }
        self.note_ended(&node.name, id, EndReason::Orphaned, steady::now())
            .await?;
        tracing::warn!(
            sandbox.id = %id,
            "sandbox {id} was given up while this server stood still; its client is told so"
        );
        Err(PlacementError::Timeout(took).into())
    }
}
