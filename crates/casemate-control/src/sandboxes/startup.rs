//! Sandboxes of templates with a start command are given away when that is ready (`templates.md` 6.1):
//! clients connect at once to what it serves.

use std::time::Duration;

use casemate_build::agent;
use casemate_rpc::{CreateReply, NodeError};
use casemate_types::{SandboxId, Startup, Timestamp, chain, steady};
use envd_client::{Envd, EnvdError};
use serde::Deserialize;
use tokio::time::Instant;

use crate::Control;
use crate::nodes::Node;

/// Why a start command did not come to be ready.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// In words for the client.
    #[error("the start command of the template failed: {0}")]
    Failed(String),
    #[error("the start command of the template was not ready within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("ask the agent of a sandbox for its start command")]
    Agent(#[source] EnvdError),
    #[error("its node went away")]
    Node(#[from] NodeError),
}

impl StartupError {
    /// Without what the command said, which is its owner's.
    pub(crate) fn for_operators(&self) -> String {
        match self {
            Self::Failed(_) => "the command ended".into(),
            Self::TimedOut(_) | Self::Agent(_) | Self::Node(_) => chain(self),
        }
    }
}

/// What the agent says of it.
#[derive(Deserialize)]
struct Report {
    state: State,
    #[serde(default)]
    message: String,
    #[serde(default)]
    output: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    None,
    Starting,
    Ready,
    Failed,
}

/// The agent answers at least so often.
const WAIT: Duration = Duration::from_secs(20);
/// How long a watch waits for a change at a time; the agent allows no more.
const WATCH: Duration = Duration::from_secs(60);
/// Between two questions of a watch.
const PACE: Duration = Duration::from_secs(1);
/// Of what the command said, for the client.
const OUTPUT_CHARS_MAX: usize = 500;

impl Control {
    /// What a node is told to let a sandbox live that runs a start command first; its deadline is set
    /// once that is ready.
    pub(crate) fn life_with(&self, startup: Option<&Startup>, life: Duration) -> Duration {
        match startup {
            Some(_) => life + self.config.create_timeout + WAIT,
            None => life,
        }
    }

    /// Waits until the start command of a new sandbox is ready; its life is counted from then. On an
    /// error the sandbox goes.
    pub(super) async fn started_in(
        &self,
        node: &Node,
        id: &SandboxId,
        startup: Option<&Startup>,
        life: Duration,
        reply: CreateReply,
    ) -> Result<CreateReply, StartupError> {
        if startup.is_none() {
            return Ok(reply);
        }
        if let Err(error) = self.started(&node.name, id, startup).await {
            node.create_failed();
            self.take_back(&node.name, id.clone());
            tracing::warn!(
                sandbox.id = %id, error = error.for_operators(),
                "the start command of sandbox {id} failed; ending it"
            );
            return Err(error);
        }
        let ends_at = self.life_from_now(&node.name, id, startup, life, reply.ends_at);
        Ok(CreateReply {
            ends_at: ends_at.await,
            ..reply
        })
    }

    /// Counts the life of one with a start command from now on; the deadline that holds then.
    pub(super) async fn life_from_now(
        &self,
        node: &str,
        id: &SandboxId,
        startup: Option<&Startup>,
        life: Duration,
        now_ends_at: Timestamp,
    ) -> Timestamp {
        if startup.is_none() {
            return now_ends_at;
        }
        let ends_at = steady::now() + life;
        let set = async { self.nodes.port(node)?.set_deadline(id, ends_at).await };
        match set.await {
            Ok(()) => ends_at,
            Err(error) => {
                tracing::warn!(
                    sandbox.id = %id, error = chain(&error),
                    "sandbox {id} lives longer than it was to: its deadline could not be set"
                );
                now_ends_at
            }
        }
    }

    /// Waits until the start command of a sandbox that has just begun is ready.
    pub(crate) async fn started(
        &self,
        node: &str,
        id: &SandboxId,
        startup: Option<&Startup>,
    ) -> Result<(), StartupError> {
        if startup.is_none() {
            return Ok(());
        }
        let token = self.keys.envd_token(id);
        let node = self.nodes.port(node)?;
        let asked = agent::of(&node, id, &token);
        let envd = asked.map_err(|error| StartupError::Agent(error.into()))?;
        let limit = self.config.create_timeout;
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StartupError::TimedOut(limit));
            }
            let wait = left.min(WAIT);
            let path = format!("/startup?wait_ms={}", wait.as_millis());
            let report = envd.get_json(&path, wait + WAIT).await;
            let Report {
                state,
                message,
                output,
            } = report.map_err(StartupError::Agent)?;
            match state {
                State::Ready | State::None => return Ok(()),
                State::Starting => {}
                State::Failed => return Err(StartupError::Failed(shown(&message, &output))),
            }
        }
    }
}

/// Returns when what a sandbox was started for does not run any more, as its agent says, or the agent
/// does not answer: why. `None`: nobody wants to know any more, which is asked about once a minute, as
/// often as the agent has to answer.
pub(crate) async fn until_not_ready(envd: &Envd, is_wanted: impl Fn() -> bool) -> Option<String> {
    let path = format!("/startup?wait_ms={}&while=ready", WATCH.as_millis());
    let mut failed_before = false;
    while is_wanted() {
        let asked = Instant::now();
        let report: Result<Report, EnvdError> = envd.get_json(&path, WATCH + WAIT).await;
        match report {
            Ok(Report {
                state: State::Ready,
                ..
            }) => failed_before = false,
            // What it says is its owner's.
            Ok(_) => return Some("its start command has ended".into()),
            // One that died is started again, and knows.
            Err(_) if !failed_before => failed_before = true,
            Err(error) => return Some(chain(&error)),
        }
        // Whoever answers at once does not make us ask all the time.
        tokio::time::sleep_until(asked + PACE).await;
    }
    None
}

/// What came out of a sandbox is cut and made one line.
fn shown(message: &str, output: &str) -> String {
    let tail: String = {
        let skipped = output.chars().count().saturating_sub(OUTPUT_CHARS_MAX);
        output.trim_end().chars().skip(skipped).collect()
    };
    let text = match tail.is_empty() {
        true => message.to_owned(),
        false => format!("{message}: {tail}"),
    };
    let text = text.chars().take(2 * OUTPUT_CHARS_MAX);
    text.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_said_is_one_bounded_line() {
        let text = shown(
            "exit status 1",
            &format!("{}\nlast\u{1b}[0m\n", "x".repeat(5000)),
        );
        assert!(text.ends_with(" last [0m"), "{text}");
        assert!(text.len() < 1000 && text.starts_with("exit status 1: x"));
        assert_eq!(shown("exit status 1", ""), "exit status 1");
    }
}
