//! A node is taken out of the cluster, and what it had with it.

use casemate_store::{NodeStanding, StoreError};
use casemate_types::{EndReason, steady};

use crate::Control;
use crate::members::Members;

/// Sandboxes of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Had {
    pub running: u64,
    pub paused: u64,
}

/// Why a node is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("Node not found")]
    NotFound,
    /// They would be given up.
    #[error(
        "node {node} has {running} running and {paused} paused sandboxes, which end with it: \
         drain it first, or remove it by force", running = .had.running, paused = .had.paused
    )]
    InUse { node: String, had: Had },
    #[error("remove a node")]
    Store(#[from] StoreError),
}

impl Control {
    /// Nobody speaks with the node any more, and its certificate is not renewed. Its sandboxes are lost:
    /// their rows end, but for paused ones whose files are stored; what runs there runs on until its deadline, and nobody reaches it. One that is not
    /// lost itself is only removed with sandboxes by `force`. What was cut off is done by asking again.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn remove_joined_node(
        &self,
        members: &Members,
        node: &str,
        force: bool,
    ) -> Result<Had, RemoveError> {
        let joined = self.store.node_by_id(node).await?;
        let rows = self.store.sandbox_list_alive(Some(node)).await?;
        match &joined {
            None if rows.is_empty() => return Err(RemoveError::NotFound),
            Some(joined) if joined.lost_at.is_none() && !force => {
                // Of one that is not drained, what rests may go on at any moment.
                let drained = joined.standing == NodeStanding::Draining;
                let would_end = rows.iter().filter(|row| !(drained && row.is_stored));
                let (running, paused): (Vec<_>, Vec<_>) = would_end.partition(|r| r.is_running());
                let had = Had {
                    running: running.len() as u64,
                    paused: paused.len() as u64,
                };
                if had != Had::default() {
                    let node = node.to_owned();
                    return Err(RemoveError::InUse { node, had });
                }
            }
            Some(_) | None => {}
        }
        members.node_remove(node).await?;
        let (mut ended, now) = (Had::default(), steady::now());
        let mut had_elsewhere = 0_u64;
        // Read again: until now some may have been made there.
        for row in self.store.sandbox_list_alive(Some(node)).await? {
            if row.is_stored {
                had_elsewhere += 1;
                continue;
            }
            let lost = self.note_ended(node, &row.id, EndReason::Lost, now);
            match (lost.await?, row.is_running()) {
                (true, true) => ended.running += 1,
                (true, false) => ended.paused += 1,
                (false, _) => {}
            }
        }
        tracing::info!(
            node,
            running = ended.running,
            paused = ended.paused,
            stored = had_elsewhere,
            "node {node} was removed, and with it what it had"
        );
        Ok(ended)
    }
}
