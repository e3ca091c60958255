//! Nodes that are lost: given up by the server that tidies up for all, or on an administrator's word.
//!
//! Who reaches a node may have its lease, so one whose lease nobody has had for [`ServerTimes::lost_after`]
//! was reached by no server in that time. That is sure only where this server's own beats came through
//! all of it: a database that was away loses nobody. And while no node at all is reached, it is rather
//! the servers that are cut off: that time counts for none of them, also not once the first is back.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use casemate_store::{Lease, Node, StoreError};
use casemate_types::{EndReason, OnTimeout, SandboxState, steady};
use tokio::time::Instant;

use super::keeping::{NODES, of_node};
use crate::Control;
use crate::config::ServerTimes;

/// Why a node is not given up.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    #[error("Node not found")]
    NotFound,
    /// It would be back at once.
    #[error(
        "an API server speaks with node {0}, or did seconds ago: cordon it, or turn its machine off \
         and try again"
    )]
    Reached(String),
    #[error("give up a node")]
    Store(#[from] StoreError),
}

/// What the server that tidies up remembers between two looks.
#[derive(Default)]
pub(super) struct Fencing {
    /// Since when nobody had the leases of these, at each look.
    silent: HashMap<String, Instant>,
    ended: Option<Instant>,
}

impl Fencing {
    /// After a beat that came through. Whoever does this anew begins with nothing.
    pub(super) async fn look(
        &mut self,
        control: &Control,
        times: ServerTimes,
    ) -> Result<(), StoreError> {
        if !control.is_janitor() {
            *self = Self::default();
            return Ok(());
        }
        let nodes = control.store.node_list().await?;
        if let Some(lost_after) = times.lost_after {
            let leases = control.store.lease_list(NODES).await?;
            let due = self.due(&nodes, &leases, lost_after);
            if control.servers.is_sure_for(lost_after, times.dead_after) {
                for node in due {
                    control.give_up(node).await?;
                }
            }
        }
        // Nobody waits for it: as often as for the death of a server.
        let is_due = |ended: Instant| ended.elapsed() >= times.dead_after;
        if self.ended.is_none_or(is_due) {
            for node in nodes.iter().filter(|node| node.lost_at.is_some()) {
                control.end_expired_at(&node.id).await?;
            }
            control.end_nowhere().await?;
            self.ended = Some(Instant::now());
        }
        Ok(())
    }

    /// Those that nobody has reached for so long, while some other was.
    fn due<'a>(
        &mut self,
        nodes: &'a [Node],
        leases: &[Lease],
        lost_after: Duration,
    ) -> Vec<&'a Node> {
        let kept: HashSet<&str> = leases
            .iter()
            .filter(|lease| lease.free_for.is_none())
            .filter_map(|lease| lease.name.strip_prefix(NODES))
            .collect();
        if !nodes.iter().any(|node| kept.contains(node.id.as_str())) {
            self.silent.clear();
            return Vec::new();
        }
        let silent = |node: &&Node| node.lost_at.is_none() && !kept.contains(node.id.as_str());
        let silent: Vec<&Node> = nodes.iter().filter(silent).collect();
        let now = Instant::now();
        self.silent = silent
            .iter()
            .map(|node| {
                let since = self.silent.get(&node.id).copied();
                (node.id.clone(), since.unwrap_or(now))
            })
            .collect();
        // The lease tells of what was between two looks; its row may be older than the node is a member.
        let is_free = |node: &Node| {
            let lease = leases.iter().find(|lease| lease.name == of_node(&node.id));
            let free_for = lease.and_then(|lease| lease.free_for);
            free_for.is_none_or(|free_for| free_for >= lost_after)
        };
        let is_due = |node: &&Node| {
            let since = self.silent.get(&node.id);
            since.is_some_and(|since| since.elapsed() >= lost_after) && is_free(node)
        };
        silent.into_iter().filter(is_due).collect()
    }
}

impl Control {
    /// Gives a node up on an administrator's word: its machine is surely off, or cut off for good.
    /// `false`: it was lost already.
    ///
    /// # Errors
    /// [`FenceError::Reached`] while a server speaks with it.
    pub async fn fence_node(&self, name: &str) -> Result<bool, FenceError> {
        let node = self.store.node_by_id(name).await?;
        let node = node.ok_or(FenceError::NotFound)?;
        if node.lost_at.is_some() {
            return Ok(false);
        }
        let lease = of_node(name);
        let leases = self.store.lease_list(&lease).await?;
        let is_held = |found: &Lease| found.name == lease && found.free_for.is_none();
        if leases.iter().any(is_held) {
            return Err(FenceError::Reached(name.to_owned()));
        }
        self.give_up(&node).await?;
        Ok(true)
    }

    async fn give_up(&self, node: &Node) -> Result<(), StoreError> {
        match self.store.node_fence(&node.id, node.generation).await {
            Ok(generation) => {
                tracing::warn!(
                    node = node.id,
                    generation,
                    event = "node.lost",
                    "node {} is given up for lost: no API server reaches it",
                    node.id
                );
                Ok(())
            }
            // Another one was faster.
            Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Rows at nodes that were removed: of a removal that was cut off, or of a create that was at one
    /// meanwhile.
    async fn end_nowhere(&self) -> Result<(), StoreError> {
        for row in self.store.sandbox_list_nowhere().await? {
            let (node, now) = (&row.node, steady::now());
            if self.note_ended(node, &row.id, EndReason::Lost, now).await? {
                tracing::info!(
                    sandbox.id = %row.id, node,
                    "sandbox {} of node {node} is lost, as the node was removed", row.id
                );
            }
        }
        Ok(())
    }

    /// What a lost node runs by its rows and is to end at a deadline that has passed has ended, wherever
    /// the node is. What is to pause comes back with it.
    async fn end_expired_at(&self, node: &str) -> Result<(), StoreError> {
        let now = steady::now();
        for row in self.store.sandbox_list_alive(Some(node)).await? {
            match row.state {
                SandboxState::Running { ends_at }
                    if row.on_timeout == OnTimeout::Kill && ends_at < now =>
                {
                    self.note_ended(node, &row.id, EndReason::Expired, now)
                        .await?;
                }
                SandboxState::Running { .. }
                | SandboxState::Paused { .. }
                | SandboxState::Dead { .. } => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use casemate_store::NodeStanding;
    use casemate_types::Timestamp;

    use super::*;

    const LOST_AFTER: Duration = Duration::from_secs(600);

    fn node(id: &str) -> Node {
        Node {
            id: id.into(),
            address: "h:1".into(),
            labels: BTreeMap::new(),
            isolation: "namespaces".into(),
            standing: NodeStanding::Open,
            generation: 1,
            joined_at: Timestamp::UNIX_EPOCH,
            lost_at: None,
        }
    }

    fn lease(node: &str, free_for: Option<Duration>) -> Lease {
        Lease {
            name: of_node(node),
            free_for,
        }
    }

    fn names(due: Vec<&Node>) -> Vec<&str> {
        due.into_iter().map(|node| node.id.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_due_when_it_was_silent_for_long_at_every_look() {
        let nodes = [node("a"), node("b"), node("c")];
        let mut fencing = Fencing::default();
        let mut due = |leases: &[Lease]| names(fencing.due(&nodes, leases, LOST_AFTER));
        // b's lease is of a time before it joined, c never had one.
        let silent = [lease("a", None), lease("b", Some(LOST_AFTER * 9))];
        assert_eq!(due(&silent), [] as [&str; 0]);
        tokio::time::advance(LOST_AFTER / 2).await;
        let kept = [lease("a", None), lease("b", None)];
        assert_eq!(due(&kept), [] as [&str; 0]);
        tokio::time::advance(LOST_AFTER / 2).await;
        assert_eq!(due(&silent), ["c"]);
        tokio::time::advance(LOST_AFTER).await;
        // It was reached between two looks.
        let lately = [lease("a", None), lease("b", Some(LOST_AFTER / 2))];
        assert_eq!(due(&lately), ["c"]);
        assert_eq!(due(&silent), ["b", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_no_node_is_reached_counts_for_none() {
        let nodes = [node("a"), node("b")];
        let mut fencing = Fencing::default();
        let silent = [lease("a", Some(LOST_AFTER)), lease("gone", None)];
        let mut due = |leases: &[Lease]| names(fencing.due(&nodes, leases, LOST_AFTER));
        assert_eq!(due(&silent), [] as [&str; 0]);
        tokio::time::advance(LOST_AFTER).await;
        assert_eq!(due(&silent), [] as [&str; 0]);
        // The first is back, and the other may come with the next look.
        let reached = [lease("a", None), lease("b", Some(LOST_AFTER * 2))];
        assert_eq!(due(&reached), [] as [&str; 0]);
        tokio::time::advance(LOST_AFTER / 2).await;
        assert_eq!(due(&reached), [] as [&str; 0]);
        tokio::time::advance(LOST_AFTER / 2).await;
        assert_eq!(due(&reached), ["b"]);
    }
}
