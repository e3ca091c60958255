//! What an API server says of itself to whoever looks after it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use casemate_control::Control;
use casemate_control::members::Members;
use casemate_control::nodes::{Connection, NodeView};
use casemate_store::Node;

use crate::health::{Health, gauge};

/// How long after its start a server that speaks with no node yet is not ready. One that waits for
/// longer has its work all the same: nodes join at it, and what needs none is answered.
const FIRST_NODE_MAX: Duration = Duration::from_secs(30);

pub(super) struct ApiHealth {
    control: Arc<Control>,
    members: Arc<Members>,
    begun: Instant,
}

impl ApiHealth {
    pub(super) fn new(control: Arc<Control>, members: Arc<Members>) -> Self {
        Self {
            control,
            members,
            begun: Instant::now(),
        }
    }
}

/// Whether there is a node with which a server speaks soon after its start. Without one it waits for
/// nothing.
pub(super) async fn has_nodes(members: &Members) -> bool {
    members
        .nodes()
        .await
        .is_ok_and(|nodes| nodes.iter().any(is_there))
}

fn is_there(node: &Node) -> bool {
    node.lost_at.is_none()
}

#[async_trait]
impl Health for ApiHealth {
    async fn missing(&self) -> Vec<String> {
        if !self.control.readiness().await.store {
            return vec!["the database does not answer, or takes no writes".into()];
        }
        let is_new = self.begun.elapsed() < FIRST_NODE_MAX;
        match is_new && !self.control.can_make_now() && has_nodes(&self.members).await {
            true => vec!["it speaks with no node yet".into()],
            false => Vec::new(),
        }
    }

    async fn metrics(&self, text: &mut String) {
        let nodes = self.control.node_list();
        let connected = |node: &&NodeView| node.connection == Connection::Connected;
        let sandboxes: BTreeMap<_, _> = nodes
            .iter()
            .filter(connected)
            .map(|node| (&node.info.node, node.info.sandboxes))
            .collect();
        let values: [(&str, &str, u64); 5] = [
            (
                "casemate_nodes_known",
                "Nodes of which something was heard",
                count(nodes.len()),
            ),
            (
                "casemate_nodes_connected",
                "Nodes that speak with this server",
                count(sandboxes.len()),
            ),
            (
                "casemate_sandboxes",
                "Sandboxes of those nodes",
                sandboxes.values().copied().map(u64::from).sum(),
            ),
            (
                "casemate_queue_length",
                "Creates that wait at the nodes",
                self.control.queue_length().into(),
            ),
            (
                "casemate_bucket_failures",
                "Times since the start that something could not be stored in the bucket, or had from it",
                self.control.bucket_failures(),
            ),
        ];
        for (name, help, value) in values {
            gauge(text, name, help, value);
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
