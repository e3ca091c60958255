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

use casemate_rpc::NodeError;
use casemate_store::{NodeStanding, Sandbox, StoreError};
use casemate_types::{SandboxId, Timestamp, chain};

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
    /// Where that may end in a refusal, by the store: what another server did, or a return, is heard here
    /// seconds later. A node that is connected costs no look.
    pub(crate) async fn node_reach(&self, node: &str) -> Result<Reach, StoreError> {
        match self.nodes.get(node) {
            Ok(node) if node.reach() == Reach::Connected => Ok(Reach::Connected),
            _ => self.node_reach_now(node).await,
        }
    }

    /// The same of a node that did not answer just now, though it may count as connected here.
    pub(crate) async fn node_reach_now(&self, node: &str) -> Result<Reach, StoreError> {
        let known = self.nodes.get(node).ok();
        if self.shared().is_none() {
            return Ok(known.map_or(Reach::Away, |node| node.reach()));
        }
        let joined = self.store.node_by_id(node).await?;
        Ok(match (known, joined) {
            (Some(node), Some(joined)) => {
                node.note_place(Place::from(&joined));
                node.reach()
            }
            // One that never joins is in no row.
            (Some(node), None) if node.place().joined_at.is_none() => node.reach(),
            // It joined a moment ago.
            (None, Some(joined)) if joined.lost_at.is_none() => Reach::Away,
            // It may have been removed.
            (None, Some(_)) | (_, None) => Reach::Lost,
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
    /// What a call means that a node did not do: nobody reaches one that is lost.
    pub(crate) async fn not_done(
        &self,
        node: &str,
        sandbox: &SandboxId,
        source: NodeError,
    ) -> ChangeError {
        if matches!(source, NodeError::Unreachable) {
            match self.node_reach_now(node).await {
                Ok(Reach::Lost) => {
                    return ChangeError::Lost {
                        sandbox: sandbox.clone(),
                        node: node.to_owned(),
                    };
                }
                Ok(Reach::Connected | Reach::Away) => {}
                Err(error) => return error.into(),
            }
        }
        ChangeError::Node {
            sandbox: sandbox.clone(),
            source,
        }
    }

    /// Notes what is known of a node that joined; one that is not there changes nothing.
    pub(crate) fn node_place(self: &Arc<Self>, name: &str, place: Place) {
        let Ok(node) = self.nodes.get(name) else {
            return;
        };
        node.note_place(place);
        if !node.is_loss_news() {
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

impl From<&casemate_store::Node> for Place {
    fn from(node: &casemate_store::Node) -> Self {
        Self {
            labels: Arc::new(node.labels.clone()),
            isolation: node.isolation.clone(),
            is_open: node.standing == NodeStanding::Open && node.lost_at.is_none(),
            is_draining: node.standing == NodeStanding::Draining,
            joined_at: Some(node.joined_at),
            lost_at: node.lost_at,
            generation: node.generation,
        }
    }
}

impl Place {
    /// Of two the younger is more: a generation begins with a loss, and ends with a return.
    fn age(&self) -> (Option<Timestamp>, u64, bool) {
        (self.joined_at, self.generation, self.lost_at.is_none())
    }
}

impl Node {
    /// What was read before what is known already changes nothing: whoever reads is overtaken by others.
    fn note_place(&self, read: Place) {
        self.place.send_if_modified(|known| {
            let is_news = read.age() >= known.age() && read != *known;
            if is_news {
                *known = read;
            }
            is_news
        });
    }

    /// It is back, and what it has was compared with the rows.
    pub(crate) fn note_return(&self, generation: u64) {
        self.place.send_modify(|place| {
            if place.generation <= generation {
                place.generation = generation;
                place.lost_at = None;
            }
        });
    }

    /// Whether it is lost, once for each loss.
    fn is_loss_news(&self) -> bool {
        let place = self.place.borrow();
        let generation = place.generation;
        place.lost_at.is_some() && self.lost_in.swap(generation, Ordering::Relaxed) != generation
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
