//! A node that is to be taken away, so that nothing is lost with it.
//!
//! ```text
//! open, cordoned ──drain──▶ draining ──▶ what runs ends, or is paused with its files ──▶ all is stored ──▶ removed
//!                              └──uncordon──▶ open
//! ```
//!
//! Its standing lies in the store, so every server gives it nothing new a moment later, whoever was asked,
//! and its keeper stores what is paused there at once. Pauses are asked for one by one: doing it again
//! finishes what a server began that died.

use std::sync::Arc;
use std::time::Duration;

use casemate_store::{AliveSandbox, NodeStanding, StoreError};
use casemate_types::{Kept, Portable, SandboxId, chain};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Node;
use crate::Control;
use crate::auth::TeamCaller;
use crate::members::Members;
use crate::sandboxes::ChangeError;
use crate::sandboxes::pause::PauseSandbox;

/// A node has a disk, which all of them write to.
const PAUSES_AT_ONCE: usize = 8;
/// How long one call begins pauses: what is left then is for the next one.
const PAUSES_LAST: Duration = Duration::from_secs(20);

/// What a node has that would end with it, and what would not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    pub running: u64,
    pub paused: u64,
    /// Of the paused ones: their files are on that node alone.
    pub unstored: u64,
    /// Layers of templates and files of snapshots that are in no bucket.
    pub artifacts: u64,
    /// Why that is so, where this server tried to store them.
    pub why: Option<String>,
}

/// One that goes on running there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotPaused {
    pub sandbox: SandboxId,
    pub why: String,
}

/// What came of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    pub left: Left,
    pub not_paused: Vec<NotPaused>,
    /// There is one, to which things can go.
    pub has_bucket: bool,
    /// Nodes that take what leaves this one.
    pub others: u64,
}

/// Why a node is not drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    #[error("Node not found")]
    NotFound,
    #[error("node {0} is lost: nothing can leave it. What is stored goes on elsewhere; remove it")]
    Lost(String),
    #[error(
        "there is no bucket (STORAGE_BUCKET): what is paused on node {0} could go on nowhere else. \
         Drain it without pauses, and wait until what runs there has ended"
    )]
    NoBucket(String),
    #[error("drain a node")]
    Store(#[from] StoreError),
}

impl Control {
    /// Gives a node nothing new, and has what is paused there stored at once; with `pause` what runs is
    /// paused with its files alone, so that it goes on elsewhere. Can be repeated, by any server.
    ///
    /// # Cancel safety
    /// What is cut off is done by asking again.
    pub async fn drain_node(
        self: &Arc<Self>,
        members: &Members,
        name: &str,
        pause: bool,
    ) -> Result<Drained, DrainError> {
        let nodes = self.store.node_list().await?;
        let joined = nodes.iter().find(|node| node.id == name);
        let joined = joined.ok_or(DrainError::NotFound)?;
        if joined.lost_at.is_some() {
            return Err(DrainError::Lost(name.to_owned()));
        }
        let has_bucket = self.bucket().is_some();
        if pause && !has_bucket {
            return Err(DrainError::NoBucket(name.to_owned()));
        }
        if joined.standing != NodeStanding::Draining {
            let found = members.node_set_standing(name, NodeStanding::Draining);
            if !found.await? {
                return Err(DrainError::NotFound);
            }
            tracing::info!(node = name, pause, "node {name} is drained");
        }
        let not_paused = match pause {
            true => self.pause_all_at(name).await?,
            false => Vec::new(),
        };
        let takes = |node: &&casemate_store::Node| {
            node.id != name && node.lost_at.is_none() && node.standing == NodeStanding::Open
        };
        Ok(Drained {
            left: self.left_at(name).await?,
            not_paused,
            has_bucket,
            others: nodes.iter().filter(takes).count() as u64,
        })
    }

    /// What a node still has, by the rows.
    pub async fn left_at(&self, name: &str) -> Result<Left, StoreError> {
        let rows = self.store.sandbox_list_alive(Some(name)).await?;
        let mut left = Left::default();
        for row in &rows {
            match (row.is_running(), row.is_stored) {
                (true, _) => left.running += 1,
                (false, is_stored) => {
                    left.paused += 1;
                    left.unstored += u64::from(!is_stored);
                }
            }
        }
        let node = self.nodes.get(name).ok();
        let there: Vec<Portable> = match &node {
            Some(node) => crate::artifacts::there(node),
            None => Vec::new(),
        };
        for asked in there.chunks(crate::artifacts::ASKED_MAX) {
            left.artifacts += self.store.artifact_due(asked).await?.len() as u64;
        }
        if left.unstored > 0 || left.artifacts > 0 {
            left.why = node.and_then(|node| node.failing.why());
        }
        Ok(left)
    }

    async fn pause_all_at(self: &Arc<Self>, name: &str) -> Result<Vec<NotPaused>, StoreError> {
        let rows = self.store.sandbox_list_alive(Some(name)).await?;
        let mut rows = rows.into_iter().filter(AliveSandbox::is_running);
        let (until, mut stay) = (Instant::now() + PAUSES_LAST, Vec::new());
        let mut pauses = JoinSet::new();
        loop {
            while pauses.len() < PAUSES_AT_ONCE && Instant::now() < until {
                let Some(row) = rows.next() else { break };
                let control = Arc::clone(self);
                pauses.spawn(async move {
                    let paused = control.pause_with_files(&row).await;
                    paused.map_err(|error| (row.id, error))
                });
            }
            match pauses.join_next().await {
                None => return Ok(stay),
                Some(Ok(Err((sandbox, error)))) => {
                    tracing::warn!(
                        sandbox.id = %sandbox, node = name, error = chain(&error),
                        "could not pause sandbox {sandbox}, whose node is drained"
                    );
                    let why = error.to_string();
                    stay.push(NotPaused { sandbox, why });
                }
                // One that was lost is found by the next call.
                Some(Ok(Ok(())) | Err(_)) => {}
            }
        }
    }

    async fn pause_with_files(&self, row: &AliveSandbox) -> Result<(), ChangeError> {
        let Some(team) = self.store.team_by_id(&row.team).await? else {
            return Ok(());
        };
        let limits = self.config.limits.of(&team);
        let caller = TeamCaller {
            team: team.into(),
            limits,
        };
        let ask = PauseSandbox {
            kept: Kept::Files,
            healthy: false,
        };
        match self.pause(&caller, &row.id, ask).await {
            Ok(()) | Err(ChangeError::AlreadyPaused(_) | ChangeError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Node {
    /// It is to be taken away.
    pub(crate) fn is_draining(&self) -> bool {
        self.place.borrow().is_draining
    }

    /// Returns once it is drained, or is no more.
    pub(crate) async fn draining_is(&self, draining: bool) {
        let mut places = self.place.subscribe();
        // The sender is ours, so it does not go.
        let _ = places.wait_for(|place| place.is_draining == draining).await;
    }
}
