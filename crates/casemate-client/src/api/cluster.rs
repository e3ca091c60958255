//! A cluster's join tokens and nodes, for its administrator.

use casemate_wire::{
    ClusterNode, CreatedJoinToken, DrainNode, DrainedNode, NewJoinToken, RemovedNode,
    SetNodeStanding,
};
use envd_client::Answer;
use http::StatusCode;
use percent_encoding::utf8_percent_encode;
use serde::de::DeserializeOwned;

use super::{Admin, PIECE, ended, read};
use crate::error::ApiError;

impl Admin {
    /// Makes a token. The answer is the only one that ever carries it.
    pub async fn join_token(&self, wanted: &NewJoinToken) -> Result<CreatedJoinToken, ApiError> {
        let answer = self.server.post("/admin/cluster/tokens", wanted).await?;
        read("join token", &answer)
    }

    pub async fn cluster_nodes(&self) -> Result<Vec<ClusterNode>, ApiError> {
        let answer = self.server.get("/admin/cluster/nodes").await?;
        read("list of nodes", &answer)
    }

    /// `open` or `cordoned`. False: there is no such node.
    pub async fn node_standing(&self, node: &str, standing: &str) -> Result<bool, ApiError> {
        let path = format!("{}/standing", member("nodes", node));
        let standing = SetNodeStanding {
            standing: standing.to_owned(),
        };
        ended(self.server.post(&path, &standing).await)
    }

    /// Gives it nothing new, and has leave what it has. `None`: there is no such node.
    pub async fn node_drain(
        &self,
        node: &str,
        pause: bool,
    ) -> Result<Option<DrainedNode>, ApiError> {
        let path = format!("{}/drain", member("nodes", node));
        found("drain", self.server.post(&path, &DrainNode { pause }).await)
    }

    /// Gives it up for lost. False: there is no such node.
    pub async fn node_fence(&self, node: &str) -> Result<bool, ApiError> {
        let path = format!("{}/fence", member("nodes", node));
        ended(self.server.post(&path, &serde_json::json!({})).await)
    }

    /// With what it had, if it is lost or by force. `None`: there is no such node.
    pub async fn node_remove(
        &self,
        node: &str,
        force: bool,
    ) -> Result<Option<RemovedNode>, ApiError> {
        let path = format!("{}?force={force}", member("nodes", node));
        found("sandboxes of a node", self.server.delete(&path).await)
    }

    /// False: there is no such edge.
    pub async fn edge_remove(&self, edge: &str) -> Result<bool, ApiError> {
        ended(self.server.delete(&member("edges", edge)).await)
    }
}

fn found<T: DeserializeOwned>(
    what: &'static str,
    answer: Result<Answer, ApiError>,
) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(answer) => read(what, &answer).map(Some),
        Err(ApiError::Refused {
            status: StatusCode::NOT_FOUND,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn member(kind: &str, name: &str) -> String {
    format!("/admin/cluster/{kind}/{}", utf8_percent_encode(name, PIECE))
}
