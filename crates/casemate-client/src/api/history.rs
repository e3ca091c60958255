//! What happened to a team's sandboxes: figures and logs.

use std::collections::BTreeMap;

use casemate_wire::{SandboxLogEntry, SandboxLogsV2, SandboxMetric, SandboxesMetrics};
use percent_encoding::utf8_percent_encode;

use super::{Api, PIECE, read};
use crate::error::ApiError;

/// Sandboxes of one question about their latest figures.
const LATEST_AT_ONCE: usize = 100;

impl Api {
    /// What a sandbox used; `start` is in seconds since 1970, without it all that is kept.
    pub async fn sandbox_metrics(
        &self,
        id: &str,
        start: Option<i64>,
    ) -> Result<Vec<SandboxMetric>, ApiError> {
        let id = utf8_percent_encode(id, PIECE);
        let mut path = format!("/sandboxes/{id}/metrics");
        if let Some(start) = start {
            path += &format!("?start={start}");
        }
        let answer = self.server.get(&path).await?;
        read("sandbox metrics", &answer)
    }

    /// The latest figures of each of these sandboxes that has any.
    pub async fn sandboxes_latest_metrics(
        &self,
        ids: &[String],
    ) -> Result<BTreeMap<String, SandboxMetric>, ApiError> {
        let mut latest = BTreeMap::new();
        for some in ids.chunks(LATEST_AT_ONCE) {
            let list = some.join(",");
            let list = utf8_percent_encode(&list, PIECE);
            let path = format!("/sandboxes/metrics?sandbox_ids={list}");
            let answer = self.server.get(&path).await?;
            let answer: SandboxesMetrics = read("sandbox metrics", &answer)?;
            latest.extend(answer.sandboxes);
        }
        Ok(latest)
    }

    /// The newest `limit` entries of a sandbox's log of at least this level, oldest first.
    pub async fn sandbox_logs(
        &self,
        id: &str,
        level: &str,
        search: Option<&str>,
        limit: u32,
    ) -> Result<Vec<SandboxLogEntry>, ApiError> {
        let id = utf8_percent_encode(id, PIECE);
        let mut path = format!("/v2/sandboxes/{id}/logs?level={level}&limit={limit}");
        if let Some(search) = search {
            path += &format!("&search={}", utf8_percent_encode(search, PIECE));
        }
        let answer = self.server.get(&path).await?;
        let mut answer: SandboxLogsV2 = read("sandbox logs", &answer)?;
        answer.logs.reverse();
        Ok(answer.logs)
    }
}
