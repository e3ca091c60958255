//! Nodes that joined: what the control plane knows of them when they do not answer.
//!
//! ```text
//! join ──▶ here ──fence──▶ lost ──return──▶ here
//!            └──────────remove───────▶ nothing
//! ```

use std::collections::BTreeMap;

use async_trait::async_trait;
use casemate_types::Timestamp;

use crate::StoreError;

/// Most labels of one node; beyond it [`StoreError::TooLarge`].
pub const LABELS_MAX: usize = 64;
/// Most bytes of all its labels together, as JSON; beyond it [`StoreError::TooLarge`].
pub const LABELS_BYTES_MAX: usize = 16 * 1024;

/// Of a node that never was fenced.
pub const FIRST_NODE_GENERATION: u64 = 1;

/// Whether a node takes sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStanding {
    Open,
    /// It takes no new ones.
    Cordoned,
    /// … and those that it has are to leave.
    Draining,
}

/// What a node says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeJoin {
    pub id: String,
    /// `host:port` of its calls.
    pub address: String,
    pub labels: BTreeMap<String, String>,
    /// The word of an isolation kind.
    pub isolation: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: String,
    pub address: String,
    pub labels: BTreeMap<String, String>,
    pub isolation: String,
    pub standing: NodeStanding,
    /// Grows when it is fenced: who speaks for an older one is not believed.
    pub generation: u64,
    /// When it joined first.
    pub joined_at: Timestamp,
    /// Since when it is given up for lost.
    pub lost_at: Option<Timestamp>,
}

#[async_trait]
pub trait Nodes {
    /// Notes a node, open; of one that is known what it says of itself, and nothing else. It is as it
    /// is afterwards.
    async fn node_join(&self, node: &NodeJoin) -> Result<Node, StoreError>;

    /// By id.
    async fn node_list(&self) -> Result<Vec<Node>, StoreError>;

    async fn node_by_id(&self, id: &str) -> Result<Option<Node>, StoreError>;

    /// Whether there is such a node.
    async fn node_set_standing(&self, id: &str, standing: NodeStanding)
    -> Result<bool, StoreError>;

    /// Gives it up for lost, and what was agreed with it before: the new generation.
    /// [`StoreError::Conflict`] when it has another generation than this.
    async fn node_fence(&self, id: &str, generation: u64) -> Result<u64, StoreError>;

    /// It is back, and knows its generation. [`StoreError::Conflict`] when it has another one.
    async fn node_return(&self, id: &str, generation: u64) -> Result<(), StoreError>;

    /// Whether there was such a node.
    async fn node_remove(&self, id: &str) -> Result<bool, StoreError>;

    /// The same of one with which nothing ends: it has no sandbox, or it is draining and has only paused
    /// ones whose files are stored. `false`: it has others, or is not there. None of them goes on there at
    /// the same time: see [`crate::Sandboxes::sandbox_resume`].
    async fn node_remove_unused(&self, id: &str) -> Result<bool, StoreError>;
}
