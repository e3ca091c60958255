//! From a node to the bucket: files of sandboxes that are paused, so that another node can have them when
//! theirs is lost or full.
//!
//! ```text
//! paused for a while ──▶ the node names or copies its files ──▶ stored ──▶ its row names them
//!                                                                 │
//!                          resumed, ended, paused anew ◀──────────┘ the row forgets them, the sweep takes them
//! ```
//!
//! A row names them only in the generation in which it was found paused, so that what it names is
//! what its pause left.

use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::NodeError;
use casemate_rpc::carrier::{Carrier, CarrierError, StoreRequest};
use casemate_store::{AliveSandbox, StoreError, StoredArtifact};
use casemate_types::{Portable, SandboxId, SandboxState, SnapshotId, TeamId, chain, steady};
use tokio::sync::watch;

use super::{CarryError, carried_names, portable};
use crate::Control;
use crate::nodes::Node;

/// How often it is looked for pauses that are long enough, at most and at least.
const LOOK_MIN: Duration = Duration::from_millis(250);
const LOOK_MAX: Duration = Duration::from_secs(30);
/// The same at a node that is drained.
const LOOK_DRAINING: Duration = Duration::from_secs(1);
const ROWS_MAX: u32 = 100;

/// For ever, beside what follows the node. `keeps` says whether this server is its keeper.
pub(crate) async fn run(control: &Arc<Control>, node: &Arc<Node>, keeps: &watch::Receiver<bool>) {
    if control.bucket().is_none() || node.carrier.is_none() {
        return;
    }
    loop {
        let draining = node.is_draining();
        let after = match draining {
            true => Some(Duration::ZERO),
            false => control.config.paused_stored_after,
        };
        let every = match after {
            Some(_) if draining => LOOK_DRAINING,
            Some(after) => (after / 2).clamp(LOOK_MIN, LOOK_MAX),
            None => LOOK_MAX,
        };
        // What changes that is a reason to look at once.
        let _ = tokio::time::timeout(every, node.draining_is(!draining)).await;
        if node.is_draining() && !draining {
            // Nor is anything else to be there alone.
            node.has_news.notify_one();
        }
        let Some(after) = after else { continue };
        if !*keeps.borrow() || node.heard().connection.is_none() {
            continue;
        }
        if let Err(error) = store_due(control, node, keeps, after).await {
            control.failed_to_carry(&error);
            if let Some(untold) = node.failing.paused.happened() {
                tracing::warn!(
                    node = node.name,
                    untold,
                    error = chain(&error),
                    "could not store the files of paused sandboxes of node {}; trying again later",
                    node.name
                );
            }
        }
    }
}

/// One after the other, the longest paused first.
async fn store_due(
    control: &Control,
    node: &Node,
    keeps: &watch::Receiver<bool>,
    after: Duration,
) -> Result<(), CarryError> {
    let before = steady::now() - after;
    let mut last = None;
    loop {
        let rows = control
            .store
            .sandbox_list_unstored(&node.name, before, last.as_ref(), ROWS_MAX);
        let rows = rows.await?;
        for row in &rows {
            if !*keeps.borrow() {
                return Ok(());
            }
            store_if_it_rests(control, node, row).await?;
        }
        last = match rows.last() {
            Some(AliveSandbox {
                id,
                state: SandboxState::Paused { at, .. },
                ..
            }) if rows.len() == ROWS_MAX as usize => Some((*at, id.clone())),
            Some(_) | None => return Ok(()),
        };
    }
}

/// What fails because of this one is no reason to leave the others.
async fn store_if_it_rests(
    control: &Control,
    node: &Node,
    row: &AliveSandbox,
) -> Result<(), CarryError> {
    let id = &row.id;
    if control.transitions.of(id).is_some() {
        return Ok(());
    }
    let stored = control.store_pause(node, id, &row.team, row.generation);
    match stored.await {
        Ok(_)
        // It has gone on meanwhile, or keeps less: then it is found again.
        | Err(CarryError::Node(
            NodeError::Exists(_) | NodeError::Paused(_) | NodeError::NotFound(_),
        ))
        | Err(CarryError::Store(StoreError::Conflict { .. })) => Ok(()),
        Err(
            error @ (CarryError::Carrier(
                CarrierError::NotThere { .. }
                | CarrierError::Invalid { .. }
                | CarrierError::Corrupt { .. },
            )
            | CarryError::Node(NodeError::Internal { .. } | NodeError::DiskFull { .. })),
        ) => {
            control.failed_to_carry(&error);
            if let Some(untold) = node.failing.one_paused.happened() {
                tracing::warn!(
                    sandbox.id = %id, node = node.name, untold, error = chain(&error),
                    "could not store the files of paused sandbox {id}"
                );
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl Control {
    /// Stores the files of a sandbox that is paused at a node, and has its row of this generation name
    /// them.
    pub(crate) async fn store_pause(
        &self,
        node: &Node,
        id: &SandboxId,
        team: &TeamId,
        generation: u64,
    ) -> Result<SnapshotId, CarryError> {
        let Some(carrier) = &node.carrier else {
            return Err(CarryError::Nowhere(format!("sandbox {id}")));
        };
        // What is left of it, should we be cut off, is nobody's.
        let pending = self.unrecorded.begin();
        let files = node.port.keep_paused(id, pending.files()).await?;
        let is_copy = files == *pending.files();
        let stored = async {
            let artifact = node.failing.noted(put(&**carrier, &files, team).await)?;
            if !is_copy {
                // They go when it goes on: then not all of them may have been read.
                let now = node.port.keep_paused(id, pending.files()).await?;
                if now != files {
                    return Err(NodeError::Exists(id.clone()).into());
                }
            }
            self.note_stored(id, generation, &files, &artifact).await
        };
        let stored = stored.await;
        if node.port.remove_snapshot(pending.files()).await.is_err() {
            tracing::debug!(snapshot.id = %pending.files(), "a copy goes with the next comparison");
        }
        let named = stored?;
        tracing::info!(
            sandbox.id = %id, node = node.name, snapshot.id = %named,
            "stored the files of paused sandbox {id} in the bucket"
        );
        Ok(named)
    }

    /// What the row names then: another one may have been faster, and what was put here goes with the
    /// sweep.
    async fn note_stored(
        &self,
        id: &SandboxId,
        generation: u64,
        files: &SnapshotId,
        artifact: &StoredArtifact,
    ) -> Result<SnapshotId, CarryError> {
        let conflict = match self.store.sandbox_store(id, generation, artifact).await {
            Ok(()) => return Ok(files.clone()),
            Err(error @ StoreError::Conflict { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        let row = self.store.sandbox_by_id(id).await?;
        let row = row.filter(|row| row.generation == generation);
        let named = row.and_then(|row| row.stored_files);
        named.ok_or_else(|| conflict.into())
    }

    /// Stores the layers of a build that the bucket has not, from a node that has them.
    pub(crate) async fn store_layers(
        &self,
        node: &Node,
        build: &casemate_store::Build,
    ) -> Result<(), CarryError> {
        let names = carried_names(build);
        let whats: Vec<Portable> = names.iter().filter_map(|name| portable(name)).collect();
        for (what, team) in self.store.artifact_due(&whats).await? {
            super::leave::store(self, node, &what, team).await?;
        }
        Ok(())
    }
}

/// A manifest that no row comes to name goes with the sweep.
async fn put(
    carrier: &dyn Carrier,
    files: &SnapshotId,
    team: &TeamId,
) -> Result<StoredArtifact, CarrierError> {
    let what = Portable::Snapshot(files.clone());
    let request = StoreRequest {
        what: what.clone(),
        scope: team.to_string(),
        like: None,
    };
    let put = carrier.store(request).await?;
    Ok(StoredArtifact {
        what,
        team: team.clone(),
        artifact: put.artifact,
        bytes: put.bytes,
    })
}
