//! `/nodes`: the machines, for administrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use casemate_control::nodes::{Connection, NodeView};
use casemate_store::NodeStanding;
use casemate_wire::{
    DiskMetrics, ErrorBody, MachineInfo, Node, NodeDetail, NodeMetrics, NodeStatus, SetNodeStatus,
};

use crate::admin::cluster;
use crate::error::ApiError;
use crate::extract::{JsonBody, Segment};
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

/// What else a status says is found, not asked for.
#[utoipa::path(
    post, path = "/nodes/{nodeID}", tag = "admin", request_body = SetNodeStatus,
    params(("nodeID" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn set_status(
    State(state): State<ApiState>,
    Segment(id): Segment,
    body: JsonBody<SetNodeStatus>,
) -> Result<StatusCode, ApiError> {
    let Ok(members) = cluster::members(&state) else {
        // Its own machine's only one.
        let known = state.control.node_list();
        if !known.iter().any(|view| view.info.node == id) {
            return Err(ApiError::not_found("Node not found"));
        }
        return Err(ApiError::conflict("the only node of a machine stays ready"));
    };
    let control = Arc::clone(&state.control);
    match body.value.status {
        NodeStatus::Draining => {
            let work = async move { control.drain_node(&members, &id, false).await };
            state.control.tasks().detached(work).await??;
        }
        NodeStatus::Ready => {
            let work = async move { members.node_set_standing(&id, NodeStanding::Open).await };
            if !state.control.tasks().detached(work).await?? {
                return Err(ApiError::not_found("Node not found"));
            }
        }
        NodeStatus::Connecting | NodeStatus::Unhealthy | NodeStatus::Standby => {
            return Err(ApiError::conflict(
                "the status of a node is set to ready or draining",
            ));
        }
    }
    Ok(StatusCode::NO_CONTENT)
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
        Connection::Connected if view.place.is_draining => NodeStatus::Draining,
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
