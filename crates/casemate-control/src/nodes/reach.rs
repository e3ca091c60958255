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

use std::sync::Arc;
use std::sync::atomic::Ordering;

use casemate_store::{Sandbox, StoreError};
use casemate_types::chain;

use super::{Node, Place};
use crate::Control;
use crate::sandboxes::ChangeError;
use crate::sandboxes::connect::runs;
use crate::tasks::TaskKind;

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
}

impl Control {
    /// Notes what is known of a node that joined; one that is not there changes nothing.
    pub(crate) fn node_place(self: &Arc<Self>, name: &str, place: Place) {
        let Ok(node) = self.nodes.get(name) else {
            return;
        };
        let was_lost = node.note_place(place);
        if was_lost || node.reach() != Reach::Lost {
            return;
        }
        tracing::warn!(
            node = name,
            "node {name} is lost: what ran there is not there until it returns"
        );
        let control = Arc::clone(self);
        self.tasks.spawn(TaskKind::Cleanup, async move {
            if let Err(error) = control.forget_running(&node).await {
                tracing::warn!(
                    node = node.name,
                    error = chain(&error),
                    "sandboxes of node {} are counted as running, though it is lost",
                    node.name
                );
            }
        });
    }

    /// What runs on a lost node takes no places here; it does again when it is seen there.
    async fn forget_running(&self, node: &Node) -> Result<(), StoreError> {
        for row in self.store.sandbox_list_alive(Some(&node.name)).await? {
            if row.is_running() && node.reach() == Reach::Lost {
                self.quota.give_back(&row.team, &row.id);
            }
        }
        Ok(())
    }
}

impl Node {
    /// Whether it was lost before. What was read before it returned changes nothing of that.
    fn note_place(&self, mut place: Place) -> bool {
        if place.generation <= self.returned.load(Ordering::Relaxed) {
            place.lost_at = None;
        }
        self.place.send_replace(place).lost_at.is_some()
    }

    /// It is back, and what it has was compared with the rows.
    pub(crate) fn note_return(&self, generation: u64) {
        self.returned.fetch_max(generation, Ordering::Relaxed);
        self.place.send_modify(|place| place.lost_at = None);
    }

    /// Returns once it is given up in a younger generation than this.
    pub(crate) async fn given_up_after(&self, generation: u64) {
        let mut places = self.place.subscribe();
        let is_lost = |place: &Place| place.lost_at.is_some() && place.generation > generation;
        // The sender is ours, so it does not go.
        let _ = places.wait_for(is_lost).await;
    }

    pub(crate) fn reach(&self) -> Reach {
        if self.place.borrow().lost_at.is_some() {
            return Reach::Lost;
        }
        match self.heard().connection {
            Some(_) => Reach::Connected,
            None => Reach::Away,
        }
    }
}
