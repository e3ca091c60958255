//! Sandboxes: what was promised to their owners.
//!
//! A row changes by compare-and-set on its generation, which each change raises by one. A row
//! that is dead stays for a while, so that a node that still runs the sandbox is told to end it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use casemate_types::sandbox::PublicState;
use casemate_types::{
    EndReason, Ingress, Kept, NetworkPolicy, OnTimeout, Resources, SandboxId, SandboxState,
    SnapshotId, TeamId, TemplateId, Timestamp,
};

use crate::{BuildId, StoreError, StoredArtifact};

/// The generation of a new row.
pub const FIRST_GENERATION: u64 = 1;

/// Rows that one call of [`Sandboxes::sandbox_forget`] removes at most; call again when it
/// removed that many.
pub const FORGET_ROWS_MAX: u32 = 500;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: SandboxId,
    pub team: TeamId,
    pub template: TemplateId,
    /// The template's first alias when the sandbox was made.
    pub alias: Option<String>,
    pub build: BuildId,
    /// Where it runs.
    pub node: String,
    pub envd_version: String,
    pub resources: Resources,
    pub metadata: BTreeMap<String, String>,
    /// Its agent asks for an access token. The token is derived, never kept.
    pub secured: bool,
    /// As asked for.
    pub network: NetworkPolicy,
    pub ingress: Ingress,
    /// Its variables, sealed by whoever keeps them here; `None` for none, and for sandboxes that
    /// were made before they were kept.
    pub envs: Option<Vec<u8>>,
    /// The life that was asked for when it was made.
    pub timeout: Duration,
    pub on_timeout: OnTimeout,
    /// Traffic wakes it when it is paused with its memory.
    pub auto_resume: bool,
    /// Start of this run, or of the last one.
    pub started_at: Timestamp,
    pub state: SandboxState,
    pub generation: u64,
    /// Of a paused one: its files, as they are since the pause, where they lie in the bucket.
    pub stored_files: Option<SnapshotId>,
}

/// A run that begins.
#[derive(Debug, Clone, Copy)]
pub struct NewRun<'a> {
    /// Where: another node than before for one that began there with its files.
    pub node: &'a str,
    pub started_at: Timestamp,
    pub ends_at: Timestamp,
    pub on_timeout: OnTimeout,
}

/// Which sandboxes are meant. A sandbox matches when all that is given matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxFilter {
    pub team: TeamId,
    /// Those with one of these states; an empty list matches nothing. The dead never match.
    pub states: Vec<PublicState>,
    /// Every key exists with exactly that value.
    pub metadata: BTreeMap<String, String>,
    pub template: Option<TemplateId>,
    /// Inclusive.
    pub started_after: Option<Timestamp>,
}

impl SandboxFilter {
    /// All that run of a team.
    pub fn running(team: TeamId) -> Self {
        Self {
            team,
            states: vec![PublicState::Running],
            metadata: BTreeMap::new(),
            template: None,
            started_after: None,
        }
    }
}

/// Order of a page (`api.md` 1.2); each is the exact reverse of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start descending, then id ascending.
    NewestFirst,
    /// Start ascending, then id descending.
    OldestFirst,
}

/// Where a page begins: after this row, whether or not it still exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub started_at: Timestamp,
    pub id: SandboxId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub order: Order,
    /// `None` is the first page.
    pub after: Option<Cursor>,
    /// Rows at most. Ask for one more than you show to learn whether there are more.
    pub rows_max: u32,
}

/// What a reconciler needs to know of a sandbox that should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliveSandbox {
    pub id: SandboxId,
    pub team: TeamId,
    pub node: String,
    pub started_at: Timestamp,
    /// Running or paused.
    pub state: SandboxState,
    pub on_timeout: OnTimeout,
    pub ingress: Ingress,
    pub generation: u64,
    /// It is paused, and its files lie in the bucket: any node will do.
    pub is_stored: bool,
}

impl AliveSandbox {
    pub fn is_running(&self) -> bool {
        matches!(self.state, SandboxState::Running { .. })
    }
}

#[async_trait]
pub trait Sandboxes {
    /// [`StoreError::Exists`] when the id is taken, also by a dead sandbox;
    /// [`StoreError::Dangling`] when the team does not exist. Template and build are not checked:
    /// they may be gone before the sandbox is.
    ///
    /// `running_max`: as many sandboxes of the team may run with this one, whoever inserts at the
    /// same time; beyond it [`StoreError::TeamFull`]. `None` counts nothing. Those that run on nodes
    /// that are lost ([`crate::Node::lost_at`]) count nowhere, and are on no page.
    async fn sandbox_insert(
        &self,
        sandbox: &Sandbox,
        running_max: Option<u32>,
    ) -> Result<(), StoreError>;

    /// Dead or alive.
    async fn sandbox_by_id(&self, id: &SandboxId) -> Result<Option<Sandbox>, StoreError>;

    async fn sandbox_page(
        &self,
        filter: &SandboxFilter,
        page: &Page,
    ) -> Result<Vec<Sandbox>, StoreError>;

    async fn sandbox_count(&self, filter: &SandboxFilter) -> Result<u64, StoreError>;

    /// How many run, for each team that has any.
    async fn sandbox_count_by_team(&self) -> Result<Vec<(TeamId, u64)>, StoreError>;

    /// Every sandbox that is running or paused, or those of one node, oldest first.
    async fn sandbox_list_alive(&self, node: Option<&str>)
    -> Result<Vec<AliveSandbox>, StoreError>;

    /// Those at nodes that are in no list any more and that go on nowhere else, as nothing of them is
    /// stored; [`FORGET_ROWS_MAX`] at most. None where no node ever joined.
    async fn sandbox_list_nowhere(&self) -> Result<Vec<AliveSandbox>, StoreError>;

    /// Moves the deadline of a running sandbox; returns the new generation.
    /// [`StoreError::Conflict`] when `generation` is not the row's, it is dead or there is none.
    async fn sandbox_set_deadline(
        &self,
        id: &SandboxId,
        generation: u64,
        ends_at: Timestamp,
    ) -> Result<u64, StoreError>;

    /// Replaces the network policy of a running sandbox; otherwise as
    /// [`Sandboxes::sandbox_set_deadline`].
    async fn sandbox_set_network(
        &self,
        id: &SandboxId,
        generation: u64,
        network: &NetworkPolicy,
    ) -> Result<u64, StoreError>;

    /// Running or paused → paused, at `at`; the second is for one of which less is kept than was: what
    /// is stored of it stays if it is the same pause.
    /// What survives a power loss is the node's word, by which a row that was lost is written again.
    /// Otherwise as [`Sandboxes::sandbox_set_deadline`].
    async fn sandbox_pause(
        &self,
        id: &SandboxId,
        generation: u64,
        at: Timestamp,
        kept: Kept,
    ) -> Result<u64, StoreError>;

    /// Paused → running, a new run; `running_max` as for [`Sandboxes::sandbox_insert`], otherwise as
    /// [`Sandboxes::sandbox_set_deadline`]. What was stored of its pause counts no more.
    /// [`StoreError::NodeGone`] when there are nodes, and the run's is none of them: it is not removed at
    /// the same time as unused.
    async fn sandbox_resume(
        &self,
        id: &SandboxId,
        generation: u64,
        run: &NewRun<'_>,
        running_max: Option<u32>,
    ) -> Result<u64, StoreError>;

    /// Notes that the files of a paused sandbox lie in the bucket, and their artifact.
    /// [`StoreError::Conflict`]: it is not paused in this generation, or its files are stored already,
    /// and nothing is noted. The generation stays.
    async fn sandbox_store(
        &self,
        id: &SandboxId,
        generation: u64,
        artifact: &StoredArtifact,
    ) -> Result<(), StoreError>;

    /// Those of a node that were paused before `before` and of which nothing is stored, longest ago
    /// first, and after this one: its pause and its id.
    async fn sandbox_list_unstored(
        &self,
        node: &str,
        before: Timestamp,
        after: Option<&(Timestamp, SandboxId)>,
        rows_max: u32,
    ) -> Result<Vec<AliveSandbox>, StoreError>;

    /// Running or paused → dead, for good; otherwise as [`Sandboxes::sandbox_set_deadline`].
    async fn sandbox_end(
        &self,
        id: &SandboxId,
        generation: u64,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<u64, StoreError>;

    /// Those of a team that were paused before `before`, longest ago first, [`FORGET_ROWS_MAX`] at
    /// most.
    async fn sandbox_list_paused(
        &self,
        team: &TeamId,
        before: Timestamp,
    ) -> Result<Vec<Sandbox>, StoreError>;

    /// Removes rows that died before `before`, [`FORGET_ROWS_MAX`] at most; how many went.
    async fn sandbox_forget(&self, before: Timestamp) -> Result<u64, StoreError>;
}
