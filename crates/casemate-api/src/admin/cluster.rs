//! `/admin/cluster/…`: machines are let in, and nodes looked after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use casemate_control::members::{Members, MembersRole, TokenError};
use casemate_control::nodes::Connection;
use casemate_control::nodes::drain::{DrainError, Left};
use casemate_control::nodes::removal::RemoveError;
use casemate_control::servers::fencing::FenceError;
use casemate_store::NodeStanding;
use casemate_wire::{
    ClusterNode, CreatedJoinToken, DrainNode, DrainedNode, ErrorBody, NewJoinToken, NodeLeft,
    NotPaused, RemovedNode, SetNodeStanding,
};

use crate::error::ApiError;
use crate::extract::{JsonBody, Params, Segment};
use crate::router::ApiState;

const TOKEN_LASTS: Duration = Duration::from_secs(3600);
const NO_NODE: &str = "Node not found";

#[utoipa::path(
    post, path = "/admin/cluster/tokens", tag = "admin", request_body = NewJoinToken,
    responses((status = 201, body = CreatedJoinToken), (status = "default", body = ErrorBody))
)]
pub(crate) async fn token(
    State(state): State<ApiState>,
    body: JsonBody<NewJoinToken>,
) -> Result<(StatusCode, Json<CreatedJoinToken>), ApiError> {
    let members = members(&state)?;
    let asked = body.value;
    let role = match asked.role.as_str() {
        "node" => MembersRole::Node,
        "edge" => MembersRole::Edge,
        _ => return Err(ApiError::bad_request(TokenError::Role)),
    };
    let lasts = asked.lasts_seconds.map_or(TOKEN_LASTS, Duration::from_secs);
    let uses = asked.uses.unwrap_or(1);
    let work = async move { members.token_make(role, lasts, uses).await };
    let token = state.control.tasks().detached(work).await??;
    let made = CreatedJoinToken {
        id: token.id(),
        token: token.to_string(),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

#[utoipa::path(
    get, path = "/admin/cluster/nodes", tag = "admin",
    responses((status = 200, body = Vec<ClusterNode>), (status = "default", body = ErrorBody))
)]
pub(crate) async fn nodes(
    State(state): State<ApiState>,
) -> Result<Json<Vec<ClusterNode>>, ApiError> {
    let nodes = members(&state)?.nodes().await?;
    let mut drained = BTreeMap::new();
    for node in &nodes {
        if node.standing == NodeStanding::Draining && node.lost_at.is_none() {
            let left = state.control.left_at(&node.id).await?;
            drained.insert(node.id.clone(), left);
        }
    }
    let heard: BTreeMap<_, _> = state
        .control
        .node_list()
        .into_iter()
        .map(|view| (view.info.node.clone(), view))
        .collect();
    let shown = |node: casemate_store::Node| {
        let view = heard.get(&node.id);
        ClusterNode {
            address: node.address,
            labels: node.labels,
            isolation: node.isolation,
            standing: word(node.standing).into(),
            connected: view.is_some_and(|view| view.connection == Connection::Connected),
            sandboxes: view.map(|view| view.info.sandboxes),
            joined_at: node.joined_at,
            lost_at: node.lost_at,
            left: drained.get(&node.id).cloned().map(what_is_left),
            node_id: node.id,
        }
    };
    Ok(Json(nodes.into_iter().map(shown).collect()))
}

#[utoipa::path(
    post, path = "/admin/cluster/nodes/{nodeID}/standing", tag = "admin",
    request_body = SetNodeStanding, params(("nodeID" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn set_standing(
    State(state): State<ApiState>,
    Segment(node): Segment,
    body: JsonBody<SetNodeStanding>,
) -> Result<StatusCode, ApiError> {
    let members = members(&state)?;
    let standing = match body.value.standing.as_str() {
        "open" => NodeStanding::Open,
        "cordoned" => NodeStanding::Cordoned,
        _ => {
            return Err(ApiError::validation(
                "the standing of a node is set to open or cordoned; it is drained by …/drain",
            ));
        }
    };
    let work = async move { members.node_set_standing(&node, standing).await };
    done(state.control.tasks().detached(work).await??, NO_NODE)
}

#[utoipa::path(
    post, path = "/admin/cluster/nodes/{nodeID}/drain", tag = "admin",
    request_body = DrainNode, params(("nodeID" = String, Path)),
    responses((status = 200, body = DrainedNode), (status = "default", body = ErrorBody))
)]
pub(crate) async fn drain(
    State(state): State<ApiState>,
    Segment(node): Segment,
    body: JsonBody<DrainNode>,
) -> Result<Json<DrainedNode>, ApiError> {
    let (control, members) = (Arc::clone(&state.control), members(&state)?);
    let pause = body.value.pause;
    let work = async move { control.drain_node(&members, &node, pause).await };
    let drained = state.control.tasks().detached(work).await??;
    let not_paused = drained.not_paused.into_iter().map(|one| NotPaused {
        sandbox_id: one.sandbox.to_string(),
        message: one.why,
    });
    Ok(Json(DrainedNode {
        left: what_is_left(drained.left),
        not_paused: not_paused.collect(),
        has_bucket: drained.has_bucket,
        others: drained.others,
    }))
}

fn what_is_left(left: Left) -> NodeLeft {
    NodeLeft {
        running: left.running,
        paused: left.paused,
        unstored: left.unstored,
        artifacts: left.artifacts,
        why: left.why,
    }
}

#[utoipa::path(
    post, path = "/admin/cluster/nodes/{nodeID}/fence", tag = "admin",
    params(("nodeID" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn fence(
    State(state): State<ApiState>,
    Segment(node): Segment,
) -> Result<StatusCode, ApiError> {
    let (control, _) = (Arc::clone(&state.control), members(&state)?);
    let work = async move { control.fence_node(&node).await };
    state.control.tasks().detached(work).await??;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    delete, path = "/admin/cluster/nodes/{nodeID}", tag = "admin",
    params(("nodeID" = String, Path), ("force" = Option<bool>, Query)),
    responses((status = 200, body = RemovedNode), (status = "default", body = ErrorBody))
)]
pub(crate) async fn remove(
    State(state): State<ApiState>,
    Segment(node): Segment,
    params: Params,
) -> Result<Json<RemovedNode>, ApiError> {
    let (control, members) = (Arc::clone(&state.control), members(&state)?);
    let force = params.value("force")?.unwrap_or(false);
    let work = async move { control.remove_joined_node(&members, &node, force).await };
    let ended = state.control.tasks().detached(work).await??;
    Ok(Json(RemovedNode {
        running: ended.running,
        paused: ended.paused,
    }))
}

#[utoipa::path(
    delete, path = "/admin/cluster/edges/{edgeID}", tag = "admin",
    params(("edgeID" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody))
)]
pub(crate) async fn remove_edge(
    State(state): State<ApiState>,
    Segment(edge): Segment,
) -> Result<StatusCode, ApiError> {
    let members = members(&state)?;
    let work = async move { members.edge_remove(&edge).await };
    done(
        state.control.tasks().detached(work).await??,
        "Edge not found",
    )
}

pub(crate) fn members(state: &ApiState) -> Result<Arc<Members>, ApiError> {
    let members = state.members.clone();
    members.ok_or_else(|| ApiError::not_found("this installation is one machine, and no cluster"))
}

fn done(found: bool, missing: &'static str) -> Result<StatusCode, ApiError> {
    match found {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found(missing)),
    }
}

fn word(standing: NodeStanding) -> &'static str {
    match standing {
        NodeStanding::Open => "open",
        NodeStanding::Cordoned => "cordoned",
        NodeStanding::Draining => "draining",
    }
}

impl From<FenceError> for ApiError {
    fn from(error: FenceError) -> Self {
        match error {
            FenceError::NotFound => Self::not_found(error),
            FenceError::Reached(_) => Self::conflict(error).code("node_reached"),
            FenceError::Store(error) => error.into(),
        }
    }
}

impl From<DrainError> for ApiError {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::NotFound => Self::not_found(error),
            DrainError::Lost(_) => Self::conflict(error).code("node_lost"),
            DrainError::NoBucket(_) => Self::conflict(error).code("no_bucket"),
            DrainError::Store(error) => error.into(),
        }
    }
}

impl From<RemoveError> for ApiError {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::NotFound => Self::not_found(error),
            RemoveError::InUse { .. } => Self::conflict(error).code("node_in_use"),
            RemoveError::Store(error) => error.into(),
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Role | TokenError::Lasts | TokenError::Uses => Self::bad_request(error),
            TokenError::Store(error) => error.into(),
            TokenError::Random(_) | TokenError::Authority(_) => {
                Self::internal("Error making a join token", &error)
            }
        }
    }
}
