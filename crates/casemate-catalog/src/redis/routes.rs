//! Routes in Redis.

use async_trait::async_trait;
use casemate_types::{Ingress, SandboxId};
use redis::Cmd;
use serde::{Deserialize, Serialize};

use super::link::{Again, Ask};
use super::{RedisCatalog, read};
use crate::routes::REMOVAL_REMEMBERED;
use crate::{Catalog, CatalogError, Route, TokenHash};

/// Of [`Record`]. A reader of another version takes a record for damaged until somebody who knows
/// better writes it again.
const VERSION: u8 = 1;

/// A route as it is kept.
#[derive(Serialize, Deserialize)]
struct Record {
    v: u8,
    node: String,
    asleep: bool,
    ingress: Ingress,
    generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traffic_token: Option<TokenHash>,
}

impl From<Route> for Record {
    fn from(route: Route) -> Self {
        Self {
            v: VERSION,
            node: route.node,
            asleep: route.asleep,
            ingress: route.ingress,
            generation: route.generation,
            traffic_token: route.traffic_token,
        }
    }
}

fn written(route: &Route) -> String {
    let record = Record::from(route.clone());
    serde_json::to_string(&record).expect("texts, numbers and lists of them are JSON")
}

fn parsed(text: &[u8]) -> Result<Route, CatalogError> {
    let damaged = |source: Box<dyn std::error::Error + Send + Sync>| CatalogError::Damaged {
        what: "a route",
        source,
    };
    let record: Record = serde_json::from_slice(text).map_err(|error| damaged(Box::new(error)))?;
    if record.v != VERSION {
        return Err(damaged(format!("its version is {}", record.v).into()));
    }
    Ok(Route {
        node: record.node,
        asleep: record.asleep,
        ingress: record.ingress,
        generation: record.generation,
        traffic_token: record.traffic_token,
    })
}

/// Of one length, so that scripts compare texts: their numbers would lose digits.
fn digits(generation: u64) -> String {
    format!("{generation:020}")
}

impl RedisCatalog {
    fn route_key(&self, sandbox: &SandboxId) -> String {
        self.key("route:", sandbox.as_str())
    }
}

#[async_trait]
impl Catalog for RedisCatalog {
    async fn route_put(&self, sandbox: &SandboxId, route: Route) -> Result<bool, CatalogError> {
        let mut put = self.scripts.route_put.prepare_invoke();
        put.key(self.route_key(sandbox));
        put.arg(sandbox.as_str()).arg(digits(route.generation));
        put.arg(&route.node).arg(written(&route));
        put.arg(self.key("node:", ""));
        let answer = self.link.ask(Ask::Script(put), Again::Yes).await?;
        read("the answer to a put", answer)
    }

    async fn route_by_id(&self, sandbox: &SandboxId) -> Result<Option<Route>, CatalogError> {
        let mut get = Cmd::new();
        get.arg("HGET").arg(self.route_key(sandbox)).arg("route");
        let answer = self.link.ask(Ask::Command(get), Again::Yes).await?;
        let record: Option<Vec<u8>> = read("a route", answer)?;
        record.as_deref().map(parsed).transpose()
    }

    async fn route_remove(
        &self,
        sandbox: &SandboxId,
        node: &str,
        generation: u64,
    ) -> Result<bool, CatalogError> {
        let mut remove = self.scripts.route_remove.prepare_invoke();
        remove.key(self.route_key(sandbox));
        remove
            .arg(sandbox.as_str())
            .arg(digits(generation))
            .arg(node);
        remove
            .arg(removal_milliseconds())
            .arg(self.key("node:", ""));
        let answer = self.link.ask(Ask::Script(remove), Again::Yes).await?;
        read("the answer to a removal", answer)
    }

    async fn routes_replace(
        &self,
        node: &str,
        routes: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Result<(), CatalogError> {
        let mut replace = self.scripts.routes_replace.prepare_invoke();
        replace.key(self.key("node:", node));
        replace.arg(node).arg(removal_milliseconds());
        replace
            .arg(self.key("route:", ""))
            .arg(self.key("node:", ""));
        replace.arg(unsure.len());
        for sandbox in unsure {
            replace.arg(sandbox.as_str());
        }
        for (sandbox, route) in routes {
            replace.arg(sandbox.as_str()).arg(digits(route.generation));
            replace.arg(written(route));
        }
        self.link.ask(Ask::Script(replace), Again::Yes).await?;
        Ok(())
    }
}

fn removal_milliseconds() -> u64 {
    REMOVAL_REMEMBERED.as_secs() * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What other versions of us read and write: a change here is one of the format.
    #[test]
    fn a_record_is_read_as_it_was_written() {
        let route = Route {
            node: "n1".into(),
            asleep: true,
            ingress: Ingress {
                https_ports: Some(vec![8443]),
                ..Ingress::default()
            },
            generation: u64::MAX,
            traffic_token: Some(TokenHash([0xab; 32])),
        };
        let text = written(&route);
        let token = "ab".repeat(32);
        assert_eq!(
            text,
            format!(
                r#"{{"v":1,"node":"n1","asleep":true,"ingress":{{"https_ports":[8443]}},"generation":18446744073709551615,"traffic_token":"{token}"}}"#
            )
        );
        assert_eq!(parsed(text.as_bytes()).unwrap(), route);
    }

    #[test]
    fn what_is_not_ours_is_damaged() {
        let other = r#"{"v":2,"node":"n","asleep":false,"ingress":{},"generation":1}"#;
        for text in ["", "{}", "[]", other] {
            let error = parsed(text.as_bytes()).unwrap_err();
            assert!(matches!(error, CatalogError::Damaged { .. }), "{text}");
            assert!(!error.is_retryable());
        }
    }
}
