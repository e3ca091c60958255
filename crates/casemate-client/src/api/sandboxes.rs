//! A team's sandboxes.

use std::collections::BTreeMap;
use std::time::Duration;

use casemate_wire::{
    AutoResume, ConnectSandboxV2, ListedSandbox, PauseSandbox, Sandbox, SandboxDetail,
    SandboxTimeout, State,
};
use http::StatusCode;
use percent_encoding::utf8_percent_encode;
use serde::Serialize;

use super::{Api, PIECE, ended, next_token, read};
use crate::error::ApiError;

/// The most pages that are followed; a server that never ends its list is an error.
pub(super) const PAGES_MAX: usize = 1000;

/// What to create. What is `None` is the server's to choose.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewSandbox {
    #[serde(rename = "templateID")]
    pub template: String,
    /// In seconds on the wire.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "seconds_opt"
    )]
    pub timeout: Option<Duration>,
    /// It is paused at its deadline instead of ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_pause: Option<bool>,
    /// Traffic wakes it while it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_resume: Option<AutoResume>,
    #[serde(
        rename = "allow_internet_access",
        skip_serializing_if = "Option::is_none"
    )]
    pub allow_internet_access: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Egress>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env_vars: BTreeMap<String, String>,
}

/// What a sandbox may reach. As a change it is the whole of it: what is `None` is cleared.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_out: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_out: Option<Vec<String>>,
    /// Only in a change: a create says it beside the network.
    #[serde(
        rename = "allow_internet_access",
        skip_serializing_if = "Option::is_none"
    )]
    pub allow_internet_access: Option<bool>,
}

/// Which sandboxes to list. Everything asked for must hold.
#[derive(Debug, Clone, Default)]
pub struct SandboxFilter {
    /// Empty: whatever their state.
    pub states: Vec<State>,
    pub metadata: BTreeMap<String, String>,
}

/// What a pause keeps, and what a paused sandbox goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Its processes as they are, where they were kept.
    Memory,
    /// Its files alone: it starts anew with them.
    Files,
}

impl Kept {
    /// As the wire says it; memory is what it takes a missing word for.
    fn memory(self) -> Option<bool> {
        match self {
            Self::Memory => None,
            Self::Files => Some(false),
        }
    }
}

/// A sandbox that runs.
#[derive(Clone)]
pub struct Connected {
    pub sandbox: Sandbox,
    /// It was paused.
    pub resumed: bool,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    pub sandboxes: Vec<ListedSandbox>,
    /// Asks for the page after this one.
    pub next: Option<String>,
}

impl Api {
    /// Creates a sandbox; answers when it can be used.
    pub async fn sandbox_create(&self, new: &NewSandbox) -> Result<Sandbox, ApiError> {
        let answer = self.server.post("/v2/sandboxes", new).await?;
        read("sandbox create", &answer)
    }

    pub async fn sandbox_by_id(&self, id: &str) -> Result<Option<SandboxDetail>, ApiError> {
        match self.server.get(&path(id, "")).await {
            Ok(answer) => read("sandbox get", &answer).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The page that `next` of the page before asks for, or the first one.
    pub async fn sandbox_list_page(
        &self,
        filter: &SandboxFilter,
        next: Option<&str>,
    ) -> Result<Page, ApiError> {
        let answer = self.server.get(&list_path(filter, next)).await?;
        Ok(Page {
            next: next_token(&answer),
            sandboxes: read("sandbox list", &answer)?,
        })
    }

    /// All pages, one after the other.
    pub async fn sandbox_list(
        &self,
        filter: &SandboxFilter,
    ) -> Result<Vec<ListedSandbox>, ApiError> {
        let mut sandboxes = Vec::new();
        let mut next = None;
        for _ in 0..PAGES_MAX {
            let page = self.sandbox_list_page(filter, next.as_deref()).await?;
            sandboxes.extend(page.sandboxes);
            next = page.next;
            if next.is_none() {
                return Ok(sandboxes);
            }
        }
        Err(ApiError::TooManyPages {
            operation: "sandboxes",
            pages_max: PAGES_MAX,
        })
    }

    /// Ends a sandbox; answers when it is gone. False: there was none.
    pub async fn sandbox_kill(&self, id: &str) -> Result<bool, ApiError> {
        ended(self.server.delete(&path(id, "")).await)
    }

    /// Lets it live this long from now, be that longer or shorter than before.
    pub async fn sandbox_set_timeout(&self, id: &str, timeout: Duration) -> Result<(), ApiError> {
        let body = SandboxTimeout {
            timeout: seconds(timeout),
        };
        self.server.post(&path(id, "/timeout"), &body).await?;
        Ok(())
    }

    /// Pauses a running sandbox; answers when nothing of it runs any more.
    pub async fn sandbox_pause(&self, id: &str, kept: Kept) -> Result<(), ApiError> {
        let body = PauseSandbox {
            memory: kept.memory(),
            require_healthy_guest: None,
        };
        self.server.post(&path(id, "/pause"), &body).await?;
        Ok(())
    }

    /// Finds a sandbox and the token for its agent; one that is paused goes on. It then lives at
    /// least this long from now. `from` says nothing of one that runs.
    pub async fn sandbox_connect(
        &self,
        id: &str,
        timeout: Option<Duration>,
        from: Kept,
    ) -> Result<Connected, ApiError> {
        let body = ConnectSandboxV2 {
            timeout: timeout.map(seconds),
            memory: from.memory(),
        };
        let path = format!("/v2{}", path(id, "/connect"));
        let answer = self.server.post(&path, &body).await?;
        Ok(Connected {
            sandbox: read("sandbox connect", &answer)?,
            resumed: answer.status == StatusCode::CREATED,
        })
    }

    /// Replaces what a sandbox may reach, for new connections from now on.
    pub async fn sandbox_set_network(&self, id: &str, egress: &Egress) -> Result<(), ApiError> {
        self.server.put(&path(id, "/network"), egress).await?;
        Ok(())
    }
}

pub(super) fn path(id: &str, below: &str) -> String {
    format!("/sandboxes/{}{below}", utf8_percent_encode(id, PIECE))
}

fn list_path(filter: &SandboxFilter, next: Option<&str>) -> String {
    let mut query = Vec::new();
    if !filter.states.is_empty() {
        let names = filter.states.iter().map(|state| match state {
            State::Running => "running",
            State::Paused => "paused",
        });
        query.push(format!("state={}", names.collect::<Vec<_>>().join(",")));
    }
    if !filter.metadata.is_empty() {
        query.push(format!("metadata={}", metadata(&filter.metadata)));
    }
    if let Some(token) = next {
        query.push(format!("nextToken={}", utf8_percent_encode(token, PIECE)));
    }
    if query.is_empty() {
        "/v2/sandboxes".to_owned()
    } else {
        format!("/v2/sandboxes?{}", query.join("&"))
    }
}

/// The filter as the SDKs write it: each key and value escaped twice, then the whole once more.
fn metadata(metadata: &BTreeMap<String, String>) -> String {
    let twice = |text: &str| {
        let once = utf8_percent_encode(text, PIECE).to_string();
        utf8_percent_encode(&once, PIECE).to_string()
    };
    let pairs = metadata
        .iter()
        .map(|(key, value)| format!("{}={}", twice(key), twice(value)));
    let pairs = pairs.collect::<Vec<_>>().join("&");
    utf8_percent_encode(&pairs, PIECE).to_string()
}

/// Whole seconds, never fewer than asked for.
pub(super) fn seconds(duration: Duration) -> u32 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

fn seconds_opt<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(seconds).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[track_caller]
    fn check_list(states: &[State], pairs: &[(&str, &str)], next: Option<&str>, expected: &str) {
        let filter = SandboxFilter {
            states: states.to_vec(),
            metadata: map(pairs),
        };
        assert_eq!(list_path(&filter, next), expected);
    }

    #[test]
    fn filters_are_written_as_the_sdks_write_them() {
        check_list(&[], &[], None, "/v2/sandboxes");
        check_list(
            &[State::Running, State::Paused],
            &[("user id", "a b&c")],
            Some("a=="),
            "/v2/sandboxes?state=running,paused\
             &metadata=user%252520id%3Da%252520b%252526c&nextToken=a%3D%3D",
        );
    }

    #[track_caller]
    fn check_create(new: &NewSandbox, expected: &str) {
        assert_eq!(serde_json::to_string(new).unwrap(), expected);
    }

    #[test]
    fn a_create_says_only_what_was_asked_for() {
        let base = NewSandbox {
            template: "base".to_owned(),
            ..Default::default()
        };
        check_create(&base, r#"{"templateID":"base"}"#);
        let all = NewSandbox {
            timeout: Some(Duration::from_millis(1500)),
            auto_pause: Some(true),
            auto_resume: Some(AutoResume { enabled: true }),
            allow_internet_access: Some(false),
            network: Some(Egress {
                deny_out: Some(vec!["8.8.8.8".to_owned()]),
                ..Default::default()
            }),
            metadata: map(&[("a", "b")]),
            env_vars: map(&[("K", "V")]),
            ..base
        };
        check_create(
            &all,
            r#"{"templateID":"base","timeout":2,"autoPause":true,"autoResume":{"enabled":true},"allow_internet_access":false,"network":{"denyOut":["8.8.8.8"]},"metadata":{"a":"b"},"envVars":{"K":"V"}}"#,
        );
    }

    #[test]
    fn an_id_stays_one_piece_of_the_path() {
        assert_eq!(path("../x?y", "/timeout"), "/sandboxes/..%2Fx%3Fy/timeout");
    }
}
