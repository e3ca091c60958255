//! Giving a team's room back: what only makes its next builds faster, and builds that nothing refers to.
//!
//! ```text
//! what running builds rest on ─▶ rows, in one transaction ─▶ files of uploads ─▶ (soon) kept files, layers
//! ```
//!
//! Rows first: what a crash leaves after them is nobody's and goes with the next look for such
//! ([`crate::reconcile`], [`crate::janitor`]). Files and layers go by that look alone, because it knows
//! what builds found before the rows went.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::SNAPSHOTS_PAGE;
use casemate_store::build_cache::USED_STEP;
use casemate_store::{CacheTrim, StoreError, TrimMode, Trimmed};
use casemate_types::{BuildStatus, SnapshotId, TeamId, Timestamp, chain, steady};

use crate::Control;
use crate::auth::TeamCaller;
use crate::reconcile;

/// A build that is not begun holds what was sent within this time: its client may be gone, and a team
/// whose uploads have no room left must be able to make some.
const SENDING_MAX: Duration = Duration::from_secs(10 * 60);
/// How long the node may take to say how large files are. Beyond it they are not counted.
const MEASURE_MAX: Duration = Duration::from_secs(20);

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimAsk {
    /// What was used within this time stays.
    pub unused_for: Duration,
    pub mode: TrimMode,
}

/// What went, or would go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    pub builds: u64,
    /// Results of steps.
    pub steps: u64,
    /// Read-only layers at the node.
    pub layers: u64,
    pub uploads: u64,
    /// Of uploads, and of steps as far as the node knows; layers are not among it.
    pub bytes: u64,
}

impl Control {
    /// Removes what the builds of the caller's team left for the next ones and nothing needs: no
    /// template, snapshot or sandbox, and no build that waits or is under way. The node gives the room
    /// back a moment later.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn trim_builds(
        self: &Arc<Self>,
        caller: &TeamCaller,
        ask: TrimAsk,
    ) -> Result<Freed, StoreError> {
        let _one = self.trimming.lock().await;
        let team = &caller.team.id;
        let before = Timestamp::now().checked_sub(ask.unused_for);
        let before = before.unwrap_or(Timestamp::MIN);
        let uploads_before = self.uploads_before(team, ask.unused_for).await?;
        let held = self.builder.held();
        let trim = CacheTrim {
            team: team.clone(),
            before,
            uploads_before,
            spared_files: held.files(),
            spared_layers: held.layers(),
            mode: ask.mode,
        };
        let trimmed = self.store.cache_trim(&trim).await?;
        let freed = Freed {
            builds: trimmed.builds,
            steps: trimmed.steps,
            layers: u64::try_from(trimmed.layers.len()).unwrap_or(u64::MAX),
            uploads: trimmed.uploads,
            bytes: trimmed
                .upload_bytes
                .saturating_add(self.bytes_of(&trimmed.files).await),
        };
        if ask.mode == TrimMode::CarryOut {
            self.follow(team, &trimmed).await;
            tracing::info!(
                team.id = %team, builds = freed.builds, steps = freed.steps, layers = freed.layers,
                uploads = freed.uploads, bytes = freed.bytes, "trimmed what builds left"
            );
        }
        Ok(freed)
    }

    /// A client that asked for a build may have sent its files, or heard that they are there, and not
    /// begun it yet. The age of the oldest build is by the wall clock, and uses are in steady time.
    async fn uploads_before(
        &self,
        team: &TeamId,
        unused_for: Duration,
    ) -> Result<Timestamp, StoreError> {
        let mut kept = unused_for;
        for build in self.store.build_list_open(team).await? {
            if let Some(record) = self.store.build_record(&build).await? {
                let age = Timestamp::now().duration_since(record.created_at);
                let mut age = Duration::try_from(age).unwrap_or_default();
                if record.status == BuildStatus::Waiting {
                    age = age.min(SENDING_MAX);
                }
                // A use is noted once a step of time.
                kept = kept.max(age.saturating_add(2 * USED_STEP));
            }
        }
        let before = steady::now().checked_sub(kept);
        Ok(before.unwrap_or(Timestamp::MIN))
    }

    /// What is left of the rows that are gone.
    async fn follow(self: &Arc<Self>, team: &TeamId, trimmed: &Trimmed) {
        if trimmed.builds > 0 {
            self.forget_builds().await;
        }
        if trimmed.uploads > 0
            && let Err(error) = self.sweep_uploads_of(team).await
        {
            tracing::warn!(
                team.id = %team, error = chain(&error),
                "could not remove old uploads; trying again later"
            );
        }
        reconcile::drop_unwanted_soon(self);
    }

    /// What the removal of kept files gives back, as far as the node says so in time.
    async fn bytes_of(&self, files: &[SnapshotId]) -> u64 {
        if files.is_empty() {
            return 0;
        }
        let files: BTreeSet<&SnapshotId> = files.iter().collect();
        let measure = async {
            let mut bytes = 0_u64;
            for node in self.nodes.connected() {
                let mut after = None;
                loop {
                    let page = node.port.snapshots(after.as_ref()).await?;
                    let known = page.iter().filter(|kept| files.contains(&kept.snapshot));
                    bytes = known
                        .filter_map(|kept| kept.bytes)
                        .fold(bytes, u64::saturating_add);
                    after = match page.last() {
                        Some(last) if page.len() == SNAPSHOTS_PAGE => Some(last.snapshot.clone()),
                        Some(_) | None => break,
                    };
                }
            }
            Ok::<_, casemate_rpc::NodeError>(bytes)
        };
        match tokio::time::timeout(MEASURE_MAX, measure).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                tracing::debug!(
                    error = chain(&error),
                    "the node does not say how large files are"
                );
                0
            }
            Err(_) => 0,
        }
    }
}
