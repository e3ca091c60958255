//! Teams: the tenants that own everything else.

use async_trait::async_trait;
use casemate_types::{TeamId, Timestamp};

use crate::StoreError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    pub id: TeamId,
    /// Unique; the namespace of the team's templates.
    pub slug: String,
    pub name: String,
    pub standing: Standing,
    pub limits: LimitOverrides,
    pub created_at: Timestamp,
}

/// Whether the team may use the platform (`api.md` 2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// Nothing new; what exists can be read and ended.
    Blocked {
        reason: Option<String>,
    },
    /// Nothing at all.
    Banned,
}

/// The team's own limits; `None` means the configured default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitOverrides {
    pub sandboxes_max: Option<u32>,
    pub life_hours_max: Option<u32>,
    pub vcpus_max: Option<u32>,
    pub memory_mib_max: Option<u32>,
    /// Days that a paused sandbox is kept; 0: for ever.
    pub paused_days: Option<u32>,
    /// Days that a snapshot is kept; 0: for ever.
    pub snapshot_days: Option<u32>,
}

#[async_trait]
pub trait Teams {
    /// [`StoreError::Exists`] when the id or the slug is taken.
    async fn team_insert(&self, team: &Team) -> Result<(), StoreError>;

    async fn team_by_id(&self, id: &TeamId) -> Result<Option<Team>, StoreError>;

    async fn team_by_slug(&self, slug: &str) -> Result<Option<Team>, StoreError>;

    /// Replaces name, standing and limits of the team with this id; whether there is one. Id,
    /// slug and creation time stay as they are.
    async fn team_update(&self, team: &Team) -> Result<bool, StoreError>;

    /// All teams, oldest first.
    async fn team_list(&self) -> Result<Vec<Team>, StoreError>;
}
