//! Which node makes a sandbox, asked one after the other, and what its refusal means.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::{CreateReply, CreateRequest, NodeError};
use casemate_store::Build;
use casemate_types::chain;

use crate::Control;
use crate::nodes::Node;
use crate::nodes::placement::ASKED_MAX;

/// Nodes that are asked beyond those that placement chose, because they have what the others lack.
const HOLDERS_ASKED_MAX: usize = 3;

/// Why no node made it. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    #[error("no node is connected")]
    NoNode,
    #[error("the node refused or failed")]
    Node(#[from] NodeError),
    #[error("the node did not answer within {0:?}")]
    Timeout(Duration),
}

/// Nodes that are asked for one sandbox, until one makes it or no other may do better.
pub(crate) struct Asking<'a> {
    control: &'a Control,
    build: &'a Build,
    chosen: VecDeque<Arc<Node>>,
    /// … or not to be asked.
    asked: Vec<String>,
    asked_max: usize,
    refused: PlacementError,
}

impl Asking<'_> {
    /// The first one, or another one after a refusal.
    pub(crate) async fn next(&mut self) -> Option<Arc<Node>> {
        let node = match self.chosen.pop_front() {
            Some(node) => node,
            None => self.holder().await?,
        };
        self.asked.push(node.name.clone());
        Some(node)
    }

    /// The node that was asked last did not make it.
    pub(crate) fn refused(&mut self, error: PlacementError) {
        if !may_be_possible_elsewhere(&error) {
            self.chosen.clear();
        }
        self.refused = error;
    }

    /// Why none made it.
    pub(crate) fn end(self) -> PlacementError {
        self.refused
    }

    /// One that has all of it, where those that were asked lack it, and there is none to fetch.
    async fn holder(&self) -> Option<Arc<Node>> {
        if !is_template_missing(&self.refused) || self.asked.len() >= self.asked_max {
            return None;
        }
        let may = |node: &Node| node.is_open() && !self.asked.contains(&node.name);
        self.control.holder(self.build, may).await
    }
}

impl Control {
    /// For a sandbox of this build; not the node of that name.
    pub(crate) fn asking<'a>(&'a self, build: &'a Build, but: Option<&str>) -> Asking<'a> {
        let mut chosen = VecDeque::from(self.candidates(build));
        chosen.retain(|node| but != Some(&node.name));
        let asked: Vec<String> = but.into_iter().map(str::to_owned).collect();
        Asking {
            control: self,
            build,
            chosen,
            asked_max: asked.len() + ASKED_MAX + HOLDERS_ASKED_MAX,
            asked,
            refused: PlacementError::NoNode,
        }
    }

    /// Places it on a node, which fetches what it lacks and the bucket has.
    pub(crate) async fn place_with(
        &self,
        node: &Arc<Node>,
        build: &Build,
        request: CreateRequest,
    ) -> Result<CreateReply, PlacementError> {
        let refused = match self.place(node, request.clone()).await {
            Err(error) if is_template_missing(&error) => error,
            placed => return placed,
        };
        match self.bring(node, build, request.sandbox.as_str()).await {
            // Under the same name: nothing was made.
            Ok(true) => self.place(node, request).await,
            Ok(false) => Err(refused),
            Err(error) => {
                tracing::info!(
                    node = node.name,
                    error = chain(&error),
                    "node {} lacks what sandbox {} begins with",
                    node.name,
                    request.sandbox
                );
                Err(refused)
            }
        }
    }

    pub(crate) async fn place(
        &self,
        node: &Node,
        request: CreateRequest,
    ) -> Result<CreateReply, PlacementError> {
        let sandbox = request.sandbox.clone();
        let limit = self.config.create_timeout;
        match tokio::time::timeout(limit, node.port.create(request)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                if may_have_happened(&error) {
                    self.take_back(&node.name, sandbox);
                }
                Err(error.into())
            }
            Err(_) => {
                self.take_back(&node.name, sandbox);
                Err(PlacementError::Timeout(limit))
            }
        }
    }
}

/// The node lacks what the sandbox is made of.
pub(super) fn is_template_missing(error: &PlacementError) -> bool {
    matches!(error, PlacementError::Node(NodeError::Unsupported { .. }))
}

/// Whether another node may do what this one did not.
fn may_be_possible_elsewhere(error: &PlacementError) -> bool {
    match error {
        PlacementError::Node(
            NodeError::Full { .. }
            | NodeError::DiskFull { .. }
            | NodeError::QueueFull { .. }
            | NodeError::Unsupported { .. }
            | NodeError::Unreachable,
        ) => true,
        // A client does not wait for that a second time; and what fails here fails there.
        PlacementError::Node(_) | PlacementError::Timeout(_) | PlacementError::NoNode => false,
    }
}

/// Whether a node that answered so may run the sandbox all the same.
pub(super) fn may_have_happened(error: &NodeError) -> bool {
    match error {
        NodeError::Unreachable | NodeError::Internal { .. } => true,
        NodeError::NotFound(_)
        | NodeError::Exists(_)
        | NodeError::Paused(_)
        | NodeError::FilesOnly(_)
        | NodeError::NoSnapshot(_)
        | NodeError::InUse(_)
        | NodeError::NotHere(_)
        | NodeError::CarryFailed { .. }
        | NodeError::PauseFailed { .. }
        | NodeError::Full { .. }
        | NodeError::DiskFull { .. }
        | NodeError::QueueFull { .. }
        | NodeError::Unsupported { .. }
        | NodeError::CreateFailed { .. }
        | NodeError::StillEnding(_)
        | NodeError::Denied
        | NodeError::PortClosed { .. } => false,
    }
}
