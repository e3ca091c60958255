//! What of the nodes' layers and kept files lies in the bucket, and by which reference.
//!
//! ```text
//! due ──the carrier stores it──▶ put ──a build or snapshot goes──▶ unneeded ──▶ forgotten
//! ```
//!
//! A row is written after the bucket has it all, and removed before it is removed there.

use async_trait::async_trait;
use casemate_types::{Portable, TeamId};

use crate::StoreError;

/// Something that any node can fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredArtifact {
    pub what: Portable,
    /// Whose it is, and in whose scope of the bucket it lies.
    pub team: TeamId,
    /// The bucket's reference.
    pub artifact: String,
    /// Its length.
    pub bytes: u64,
}

#[async_trait]
pub trait Artifacts {
    /// Of these, what builds that are ready or snapshots need, and no artifact is noted of; with whose
    /// it is. What is of no team (the base) is not.
    async fn artifact_due(&self, whats: &[Portable])
    -> Result<Vec<(Portable, TeamId)>, StoreError>;

    /// Notes one. `false`: another is noted for it, which stays.
    async fn artifact_put(&self, artifact: &StoredArtifact) -> Result<bool, StoreError>;

    /// Those of these that are noted, in no order.
    async fn artifact_find(&self, whats: &[Portable]) -> Result<Vec<StoredArtifact>, StoreError>;

    /// Those that no build that is ready, no snapshot and no paused sandbox needs any more: so many at
    /// most.
    async fn artifact_unneeded(&self, rows_max: u32) -> Result<Vec<StoredArtifact>, StoreError>;

    /// Removes a note. `false`: there is none, or another reference is noted by now.
    async fn artifact_forget(&self, artifact: &StoredArtifact) -> Result<bool, StoreError>;

    /// References of all that are noted of a team, its uploads among them.
    async fn artifact_references(&self, team: &TeamId) -> Result<Vec<String>, StoreError>;
}
