//! What administrators ask of a cluster: ours, E2B has none of it.

use std::collections::BTreeMap;

use casemate_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Request: a token with which machines join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewJoinToken {
    /// `node` or `edge`.
    pub role: String,
    /// Seconds; an hour where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts_seconds: Option<u64>,
    /// How often it may be used; once where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// The only answer that carries it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedJoinToken {
    pub id: String,
    pub token: String,
}

/// A node that joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNode {
    #[serde(rename = "nodeID")]
    pub node_id: String,
    /// `host:port` of its gate.
    pub address: String,
    pub labels: BTreeMap<String, String>,
    pub isolation: String,
    /// `open`, `cordoned` or `draining`.
    pub standing: String,
    /// The server that was asked speaks with it.
    pub connected: bool,
    /// As it said last; absent where nothing was heard of it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandboxes: Option<u32>,
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
    /// Since when it is given up for lost; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub lost_at: Option<Timestamp>,
    /// Of one that is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<NodeLeft>,
}

/// What a node has that is drained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeLeft {
    pub running: u64,
    pub paused: u64,
    /// Of the paused ones: their files are there alone.
    pub unstored: u64,
    /// Layers of templates and files of snapshots that are there and in no bucket.
    pub artifacts: u64,
    /// Why what is not stored is not, where the API server that answers has tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Request: a node gets nothing new, and what it has is to leave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainNode {
    /// What runs is paused with its files alone.
    #[serde(default)]
    pub pause: bool,
}

/// Answer: what came of it so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainedNode {
    pub left: NodeLeft,
    /// Those that could not be paused, and run on.
    pub not_paused: Vec<NotPaused>,
    /// Whether there is a bucket, through which things can leave.
    pub has_bucket: bool,
    /// Nodes that take sandboxes, beside this one.
    pub others: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotPaused {
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    pub message: String,
}

/// Answer: sandboxes that ended with their node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedNode {
    pub running: u64,
    pub paused: u64,
}

/// Request: whether a node takes new sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetNodeStanding {
    /// `open` or `cordoned`.
    pub standing: String,
}
