//! Snapshots: what teams keep of sandboxes, as builds of templates under tags.
//!
//! Their files are at a node; a row here says that they are wanted. Files without a row are nobody's,
//! and whoever reconciles removes them.

use async_trait::async_trait;
use casemate_types::sandbox::PublicState;
use casemate_types::{SandboxId, SnapshotId, TeamId, TemplateId, Timestamp};

use crate::{Build, BuildId, StoreError};

/// A snapshot as its team finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub template: TemplateId,
    /// Without namespace; `None` for one without a name.
    pub alias: Option<String>,
    pub tag: String,
    pub build: BuildId,
    /// The name of its files at the node.
    pub files: SnapshotId,
    pub node: String,
    /// Of which it was taken.
    pub sandbox: SandboxId,
    pub created_at: Timestamp,
}

/// One to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    pub team: TeamId,
    /// Of the team.
    pub namespace: String,
    /// `None`: it is found by its template's id alone.
    pub alias: Option<String>,
    pub tag: String,
    /// With [`Build::files`]. Its template is made, unless the alias has one already.
    pub build: Build,
    pub node: String,
    pub sandbox: SandboxId,
}

/// Where it came to lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedSnapshot {
    pub template: TemplateId,
    /// Files of the build that had the tag, which nothing needs any more.
    pub replaced: Option<SnapshotId>,
}

/// Which snapshots are meant. One matches when all that is given matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFilter {
    pub team: TeamId,
    pub sandbox: Option<SandboxId>,
    /// An alias of the team or a template's id.
    pub name: Option<String>,
    pub tag: Option<String>,
}

/// Where a page begins: after this one. Newest first, then by build and tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotCursor {
    pub created_at: Timestamp,
    pub build: BuildId,
    pub tag: String,
}

/// What became of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateDeleted {
    /// Nothing needs these files any more.
    Done(Vec<SnapshotId>),
    /// Its team has sandboxes of it in this state; nothing was changed.
    InUse(PublicState),
    Unknown,
}

#[async_trait]
pub trait Snapshots {
    /// Writes a snapshot. A name that the team has already takes it as a new build under the tag.
    /// [`StoreError::Exists`] when the name is that of a template that is no snapshot, or a
    /// template's id.
    async fn snapshot_insert(&self, snapshot: &NewSnapshot) -> Result<PlacedSnapshot, StoreError>;

    /// Newest first, `rows_max` at most.
    async fn snapshot_page(
        &self,
        filter: &SnapshotFilter,
        after: Option<&SnapshotCursor>,
        rows_max: u32,
    ) -> Result<Vec<Snapshot>, StoreError>;

    /// Which of these files are wanted: a snapshot or a cached layer names them.
    async fn snapshot_wanted(&self, files: &[SnapshotId]) -> Result<Vec<SnapshotId>, StoreError>;

    /// Removes the snapshots of a team that were taken before `before`, and with their last one their
    /// template; those of templates that sandboxes are of stay. The files that nothing needs any
    /// more.
    async fn snapshot_expire(
        &self,
        team: &TeamId,
        before: Timestamp,
    ) -> Result<Vec<SnapshotId>, StoreError>;

    /// Removes a template with all its tags and builds, whatever became of them, unless sandboxes of
    /// the team whose it is are there; of any team for the platform's own. Whose it is is not judged
    /// here. Builds from which other teams' sandboxes run are found by [`crate::Templates::build_by_id`]
    /// alone, until those are dead ([`Snapshots::template_purge`]).
    async fn template_delete(&self, id: &TemplateId) -> Result<TemplateDeleted, StoreError>;

    /// Removes what was left of deleted templates for sandboxes that are dead now: the files that
    /// nothing needs any more. Idempotent, and cheap when there is nothing.
    async fn template_purge(&self) -> Result<Vec<SnapshotId>, StoreError>;
}
