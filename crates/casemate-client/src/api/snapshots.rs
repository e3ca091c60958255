//! What is kept of a team's sandboxes beyond them, and new ones that begin with it.

use std::time::Duration;

use casemate_wire::{ForkResult, ForkSandbox, NewSnapshot, SnapshotInfo};
use percent_encoding::utf8_percent_encode;

use super::sandboxes::{PAGES_MAX, path, seconds};
use super::{Api, PIECE, ended, next_token, read};
use crate::error::ApiError;

impl Api {
    /// Keeps the files of a running sandbox, under a name (`alias[:tag]`) or an id alone. The answer's
    /// id is what a create takes as its template.
    pub async fn snapshot_take(
        &self,
        id: &str,
        name: Option<&str>,
    ) -> Result<SnapshotInfo, ApiError> {
        let body = NewSnapshot {
            name: name.map(str::to_owned),
            memory: None,
        };
        let answer = self.server.post(&path(id, "/snapshots"), &body).await?;
        read("snapshot take", &answer)
    }

    /// All snapshots, newest first, or those that were taken of one sandbox.
    pub async fn snapshot_list(
        &self,
        sandbox: Option<&str>,
    ) -> Result<Vec<SnapshotInfo>, ApiError> {
        let mut snapshots = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let answer = self
                .server
                .get(&list_path(sandbox, next.as_deref()))
                .await?;
            next = next_token(&answer);
            snapshots.extend(read::<Vec<SnapshotInfo>>("snapshot list", &answer)?);
            if next.is_none() {
                return Ok(snapshots);
            }
        }
        Err(ApiError::TooManyPages {
            operation: "snapshots",
            pages_max: PAGES_MAX,
        })
    }

    /// Deletes a snapshot with all its tags. False: there was none. One that a sandbox runs from, or
    /// is paused with, is refused.
    pub async fn snapshot_delete(&self, snapshot: &str) -> Result<bool, ApiError> {
        let snapshot = utf8_percent_encode(snapshot, PIECE);
        ended(self.server.delete(&format!("/templates/{snapshot}")).await)
    }

    /// New sandboxes that begin with the files of one that runs: one answer for each, for some may
    /// be refused.
    pub async fn sandbox_fork(
        &self,
        id: &str,
        count: u32,
        timeout: Option<Duration>,
    ) -> Result<Vec<ForkResult>, ApiError> {
        let body = ForkSandbox {
            timeout: timeout.map(seconds),
            count: Some(i32::try_from(count).unwrap_or(i32::MAX)),
        };
        let answer = self.server.post(&path(id, "/fork"), &body).await?;
        read("sandbox fork", &answer)
    }
}

fn list_path(sandbox: Option<&str>, next: Option<&str>) -> String {
    let mut query = Vec::new();
    if let Some(id) = sandbox {
        query.push(format!("sandboxID={}", utf8_percent_encode(id, PIECE)));
    }
    if let Some(token) = next {
        query.push(format!("nextToken={}", utf8_percent_encode(token, PIECE)));
    }
    match query.is_empty() {
        true => "/snapshots".to_owned(),
        false => format!("/snapshots?{}", query.join("&")),
    }
}
