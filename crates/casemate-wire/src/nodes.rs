use casemate_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether a node takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    Ready,
    Draining,
    Connecting,
    Unhealthy,
    Standby,
}

/// Request: what a node's status is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetNodeStatus {
    pub status: NodeStatus,
}

/// The processor of a node; empty texts where it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineInfo {
    pub cpu_family: String,
    pub cpu_model: String,
    pub cpu_model_name: String,
    pub cpu_architecture: String,
}

/// One file system of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskMetrics {
    pub mount_point: String,
    pub device: String,
    pub filesystem_type: String,
    pub used_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeMetrics {
    #[serde(rename = "allocatedCPU")]
    pub allocated_cpu: u32,
    pub cpu_percent: u32,
    pub cpu_count: u32,
    pub allocated_memory_bytes: u64,
    pub memory_used_bytes: u64,
    pub memory_total_bytes: u64,
    pub huge_pages_total: u64,
    pub huge_pages_used: u64,
    pub huge_pages_reserved: u64,
    pub huge_page_size_bytes: u64,
    pub disks: Vec<DiskMetrics>,
}

/// A node as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub id: String,
    #[serde(rename = "serviceInstanceID")]
    pub service_instance_id: String,
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    pub status: NodeStatus,
    #[schema(value_type = String, format = DateTime)]
    pub status_changed_at: Timestamp,
    pub sandbox_count: u32,
    pub metrics: NodeMetrics,
    pub create_successes: u64,
    pub create_fails: u64,
    pub sandbox_starting_count: u32,
    pub version: String,
    pub commit: String,
    pub machine_info: MachineInfo,
}

/// A node by itself: the same without `sandboxStartingCount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeDetail {
    pub id: String,
    #[serde(rename = "serviceInstanceID")]
    pub service_instance_id: String,
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    pub status: NodeStatus,
    #[schema(value_type = String, format = DateTime)]
    pub status_changed_at: Timestamp,
    pub sandbox_count: u32,
    pub metrics: NodeMetrics,
    pub create_successes: u64,
    pub create_fails: u64,
    pub version: String,
    pub commit: String,
    pub machine_info: MachineInfo,
}

impl From<Node> for NodeDetail {
    fn from(node: Node) -> Self {
        Self {
            id: node.id,
            service_instance_id: node.service_instance_id,
            cluster_id: node.cluster_id,
            status: node.status,
            status_changed_at: node.status_changed_at,
            sandbox_count: node.sandbox_count,
            metrics: node.metrics,
            create_successes: node.create_successes,
            create_fails: node.create_fails,
            version: node.version,
            commit: node.commit,
            machine_info: node.machine_info,
        }
    }
}
