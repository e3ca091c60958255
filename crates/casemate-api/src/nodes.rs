//! `/nodes`: the machines, for administrators.

use axum::Json;
use axum::extract::State;
use casemate_control::nodes::{Connection, NodeView};
use casemate_wire::{
    DiskMetrics, ErrorBody, MachineInfo, Node, NodeDetail, NodeMetrics, NodeStatus,
};

use crate::error::ApiError;
use crate::extract::Segment;
use crate::router::ApiState;

/// There is one cluster, and it has no name.
const CLUSTER_ID: &str = "00000000-0000-0000-0000-000000000000";

#[utoipa::path(
    get, path = "/nodes", tag = "admin",
    responses((status = 200, body = Vec<Node>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Vec<Node>> {
    Json(state.control.node_list().into_iter().map(shown).collect())
}

#[utoipa::path(
    get, path = "/nodes/{nodeID}", tag = "admin",
    params(("nodeID" = String, Path)),
    responses((status = 200, body = NodeDetail), (status = "default", body = ErrorBody))
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    Segment(id): Segment,
) -> Result<Json<NodeDetail>, ApiError> {
    let nodes = state.control.node_list();
    let found = nodes.into_iter().find(|view| view.info.node == id);
    let node = found.ok_or_else(|| ApiError::not_found("Node not found"))?;
    Ok(Json(shown(node).into()))
}

fn shown(view: NodeView) -> Node {
    let info = view.info;
    let disk = info.disk.map(|disk| DiskMetrics {
        mount_point: disk.mount_point,
        device: disk.device,
        filesystem_type: disk.file_system,
        used_bytes: disk.used_bytes,
        total_bytes: disk.total_bytes,
    });
    let status = match view.connection {
        Connection::Connecting => NodeStatus::Connecting,
        Connection::Connected if info.ready => NodeStatus::Ready,
        Connection::Connected => NodeStatus::Unhealthy,
    };
    Node {
        service_instance_id: info.node.clone(),
        id: info.node,
        cluster_id: CLUSTER_ID.into(),
        status,
        status_changed_at: view.changed_at,
        sandbox_count: info.sandboxes,
        metrics: NodeMetrics {
            allocated_cpu: info.vcpus_promised,
            cpu_percent: info.cpu_percent,
            cpu_count: info.cpu_count,
            allocated_memory_bytes: info.memory_promised_bytes,
            memory_used_bytes: info
                .memory_total_bytes
                .saturating_sub(info.memory_available_bytes),
            memory_total_bytes: info.memory_total_bytes,
            disks: disk.into_iter().collect(),
            ..NodeMetrics::default()
        },
        create_successes: view.create_successes,
        create_fails: view.create_fails,
        sandbox_starting_count: u32::try_from(view.starting).unwrap_or(u32::MAX),
        version: info.version,
        commit: String::new(),
        machine_info: MachineInfo {
            cpu_family: info.processor.family,
            cpu_model: info.processor.model,
            cpu_model_name: info.processor.name,
            cpu_architecture: info.processor.architecture,
        },
    }
}
