//! Whether a node's sandboxes can be reached, and what it means for them that they cannot.
//!
//! ```text
//!            ┌── connection lost ──▶      ┌── fenced ──▶
//!  Connected                         Away                Lost
//!            ◀── connected ──────────┘    ◀── returned ──┘
//! ```
//!
//! A node that is away has its sandboxes, as far as anybody knows, and calls of them may be asked again.
//! One that is lost was given up: its row in the store says so (`nodes.lost_at`), and no row of a sandbox
//! changes for that, so that all is as it was when it returns.

use casemate_store::{Sandbox, StoreError};

use super::Node;
use crate::Control;
use crate::sandboxes::ChangeError;
use crate::sandboxes::connect::runs;

/// How this server stands with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Connected,
    /// It is not known here, or does not answer now.
    Away,
    /// Given up, and not back yet. It may be connected: until what it has was compared with the rows it
    /// is as lost as before.
    Lost,
}

impl Control {
    /// By what this server heard last: the store's row is younger by seconds at most, so that whoever
    /// acts on this writes by compare-and-set.
    pub(crate) async fn node_reach(&self, node: &str) -> Result<Reach, StoreError> {
        if let Ok(node) = self.nodes.get(node) {
            return Ok(node.reach());
        }
        if self.shared().is_none() {
            return Ok(Reach::Away);
        }
        // It joined a moment ago, or was removed.
        let joined = self.store.node_by_id(node).await?;
        Ok(match joined {
            Some(node) if node.lost_at.is_none() => Reach::Away,
            Some(_) | None => Reach::Lost,
        })
    }

    /// Refuses one that ran on a node that is lost: nobody knows whether it runs.
    pub(crate) async fn must_not_be_lost(&self, row: &Sandbox) -> Result<(), ChangeError> {
        if runs(&row.state) && self.node_reach(&row.node).await? == Reach::Lost {
            return Err(ChangeError::Lost {
                sandbox: row.id.clone(),
                node: row.node.clone(),
            });
        }
        Ok(())
    }

    /// Refuses to let one go on whose files are on a node that is lost, and nowhere else.
    pub(crate) async fn files_must_be_at_hand(&self, row: &Sandbox) -> Result<(), ChangeError> {
        if self.node_reach(&row.node).await? == Reach::Lost {
            return Err(ChangeError::FilesLost {
                sandbox: row.id.clone(),
                node: row.node.clone(),
            });
        }
        Ok(())
    }
}

impl Node {
    pub(crate) fn reach(&self) -> Reach {
        if self.place().lost_at.is_some() {
            return Reach::Lost;
        }
        match self.heard().connection {
            Some(_) => Reach::Connected,
            None => Reach::Away,
        }
    }
}
