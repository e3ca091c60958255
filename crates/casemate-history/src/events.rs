//! Lifecycle events of sandboxes, with E2B's payload (`api.md` 3.14).

use async_trait::async_trait;
use casemate_types::{SandboxId, TeamId, TemplateId, Timestamp};
use uuid::Uuid;

use crate::HistoryError;

/// What happened to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Created,
    /// It ended; `data` says why.
    Killed,
    /// Its deadline or its network changed; `data` says which.
    Updated,
    /// Or less is kept of a paused one than was; `data` says what is kept and why.
    Paused,
    /// A new run of it began; `data` says with what.
    Resumed,
    /// A snapshot of it was taken; `data` says which.
    Checkpointed,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LifecycleEvent {
    pub id: Uuid,
    pub kind: EventKind,
    pub at: Timestamp,
    pub team: TeamId,
    pub sandbox: SandboxId,
    /// Of one run of the sandbox: the same in all its events until it is resumed.
    pub execution: Uuid,
    pub template: TemplateId,
    /// `None` for a sandbox that nobody has a record of.
    pub build: Option<Uuid>,
    /// An object, or null.
    pub data: serde_json::Value,
}

/// Which events to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    pub team: TeamId,
    /// Of one sandbox, or of all.
    pub sandbox: Option<SandboxId>,
    pub oldest_first: bool,
    /// None that happened later.
    pub until: Option<Timestamp>,
    pub offset: u32,
    pub rows_max: u32,
}

#[async_trait]
pub trait Events {
    /// Appends events; one whose id is there already changes nothing.
    async fn events_append(&self, events: &[LifecycleEvent]) -> Result<(), HistoryError>;

    /// One page, in order of time; those of one moment in the order in which they came.
    async fn events_read(&self, page: &EventPage) -> Result<Vec<LifecycleEvent>, HistoryError>;
}
