//! Nodes, and the tokens with which they join.

use std::collections::BTreeMap;

use super::{Misread, Named, from_json, small, timestamp, to_json, unknown_word};
use crate::{JoinRole, JoinToken, Node, NodeStanding, StoreError};

#[derive(sqlx::FromRow)]
pub(crate) struct NodeRow {
    id: String,
    address: String,
    labels: String,
    isolation: String,
    standing: String,
    generation: i64,
    joined_at: i64,
    lost_at: Option<i64>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct JoinTokenRow {
    id: String,
    hash: Vec<u8>,
    role: String,
    expires_at: i64,
    uses_left: Option<i64>,
}

pub(crate) fn labels_text(labels: &BTreeMap<String, String>) -> String {
    to_json(labels)
}

pub(crate) fn node_standing_word(standing: NodeStanding) -> &'static str {
    match standing {
        NodeStanding::Open => "open",
        NodeStanding::Cordoned => "cordoned",
        NodeStanding::Draining => "draining",
    }
}

fn node_standing(word: &str) -> Result<NodeStanding, Misread> {
    match word {
        "open" => Ok(NodeStanding::Open),
        "cordoned" => Ok(NodeStanding::Cordoned),
        "draining" => Ok(NodeStanding::Draining),
        other => Err(unknown_word("standing of a node", other)),
    }
}

pub(crate) fn join_role_word(role: JoinRole) -> &'static str {
    match role {
        JoinRole::Node => "node",
        JoinRole::Edge => "edge",
    }
}

pub(crate) fn join_role(word: &str) -> Result<JoinRole, Misread> {
    match word {
        "node" => Ok(JoinRole::Node),
        "edge" => Ok(JoinRole::Edge),
        other => Err(unknown_word("role", other)),
    }
}

impl TryFrom<NodeRow> for Node {
    type Error = StoreError;

    fn try_from(row: NodeRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_node(row).named("node", &id)
    }
}

impl TryFrom<JoinTokenRow> for JoinToken {
    type Error = StoreError;

    fn try_from(row: JoinTokenRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_token(row).named("join token", &id)
    }
}

fn read_node(row: NodeRow) -> Result<Node, Misread> {
    Ok(Node {
        labels: from_json(&row.labels)?,
        standing: node_standing(&row.standing)?,
        generation: u64::try_from(row.generation)?,
        joined_at: timestamp(row.joined_at)?,
        lost_at: row.lost_at.map(timestamp).transpose()?,
        id: row.id,
        address: row.address,
        isolation: row.isolation,
    })
}

fn read_token(row: JoinTokenRow) -> Result<JoinToken, Misread> {
    let hash = row
        .hash
        .try_into()
        .map_err(|_| "a hash of another length")?;
    Ok(JoinToken {
        hash,
        role: join_role(&row.role)?,
        expires_at: timestamp(row.expires_at)?,
        uses_left: row.uses_left.map(small).transpose()?,
        id: row.id,
    })
}
