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
    /// their rows end, but for paused ones whose files are stored; what runs there runs on until its
    /// deadline, and nobody reaches it. One that is not lost itself is only removed with sandboxes by
    /// `force`. What was cut off is done by asking again.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn remove_joined_node(
        &self,
        members: &Members,
        node: &str,
        force: bool,
    ) -> Result<Had, RemoveError> {
        match self.store.node_by_id(node).await? {
            // Whether one goes on there is not for this to find out: it would be over by then.
            Some(joined) if joined.lost_at.is_none() && !force => {
                while !members.node_remove_unused(node).await? {
                    let had = self.would_end_with(node).await?;
                    let had = had.ok_or(RemoveError::NotFound)?;
                    // Otherwise it is over in between.
                    if had != Had::default() {
                        let node = node.to_owned();
                        return Err(RemoveError::InUse { node, had });
                    }
                }
            }
            Some(_) => {
                members.node_remove(node).await?;
            }
            None if self.store.sandbox_list_alive(Some(node)).await?.is_empty() => {
                return Err(RemoveError::NotFound);
            }
            // Of a removal that was cut off.
            None => {}
        }
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

    /// `None`: there is no such node.
    async fn would_end_with(&self, node: &str) -> Result<Option<Had>, StoreError> {
        let Some(joined) = self.store.node_by_id(node).await? else {
            return Ok(None);
        };
        // Of one that is not drained, what rests may go on at any moment.
        let drained = joined.standing == NodeStanding::Draining;
        let mut had = Had::default();
        for row in self.store.sandbox_list_alive(Some(node)).await? {
            match row.is_running() {
                true => had.running += 1,
                false => had.paused += u64::from(!(drained && row.is_stored)),
            }
        }
        Ok(Some(had))
    }
}
