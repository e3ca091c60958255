//! The listener of a role for whoever looks after it: does it live, can it do its work, what does it
//! count. Plain HTTP, and nothing secret.
//!
//! `/health` is 200 while the process runs its tasks; `/ready` is 200 when the role can do its work,
//! else 503 with what is missing; `/metrics` is Prometheus' text.

use std::fmt::Write;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use casemate_cluster::Crowd;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Role;

mod bounded;

use bounded::Bounded;

/// Looks at the role at once; more wait.
const REQUESTS_MAX: usize = 64;
/// How long an answer may take: whoever looks has given up by then.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Connections at once, half of them from one address; for one more the oldest ends.
const CONNECTIONS_MAX: usize = 256;

/// What a role knows of itself.
#[async_trait]
pub trait Health: Send + Sync + 'static {
    /// What it lacks for its work, in a few words each; nothing: it is ready.
    async fn missing(&self) -> Vec<String>;

    /// Its own metrics, appended as Prometheus' text; see [`gauge`].
    async fn metrics(&self, text: &mut String);
}

/// Writes one metric that has no labels.
pub fn gauge(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    // Writing to a text does not fail.
    let _ = writeln!(
        text,
        "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
    );
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    role: Role,
    started: Instant,
    health: Arc<dyn Health>,
    ending: CancellationToken,
    requests: Arc<Semaphore>,
}

/// Serves until it is dropped. From `ending` on it says that the role is not ready, so that nobody
/// sends it work any more.
pub async fn serve(
    listener: TcpListener,
    role: Role,
    health: Arc<dyn Health>,
    ending: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = Bounded {
        listener: tokio::net::TcpListener::from_std(listener)?,
        crowd: Crowd::new(CONNECTIONS_MAX),
    };
    let shared = Shared {
        role,
        started: Instant::now(),
        health,
        ending,
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
    };
    axum::serve(listener, router(shared)).await
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/health", get(async || "ok: Health check successful"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

impl Shared {
    async fn missing(&self) -> Vec<String> {
        if self.ending.is_cancelled() {
            return vec!["it is ending".into()];
        }
        let looking = async {
            let _turn = self.requests.acquire().await;
            self.health.missing().await
        };
        let missing = tokio::time::timeout(ANSWER_MAX, looking).await;
        missing.unwrap_or_else(|_| vec!["an answer in time".into()])
    }
}

async fn ready(State(shared): State<Shared>) -> Response {
    let missing = shared.missing().await;
    let status = match missing.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({"ready": missing.is_empty(), "missing": missing});
    (status, Json(body)).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let ready = shared.missing().await.is_empty();
    let mut text = String::new();
    let (version, role) = (env!("CARGO_PKG_VERSION"), shared.role.word());
    let _ = writeln!(
        text,
        "# HELP casemate_build_info What runs\n# TYPE casemate_build_info gauge\n\
         casemate_build_info{{version=\"{version}\",role=\"{role}\"}} 1"
    );
    let up = shared.started.elapsed().as_secs();
    gauge(&mut text, "casemate_uptime_seconds", "Since its start", up);
    let ready = u8::from(ready);
    gauge(
        &mut text,
        "casemate_ready",
        "Whether it can do its work",
        ready,
    );
    if let Some(bytes) = resident_bytes() {
        let (name, help) = ("process_resident_memory_bytes", "Memory of this process");
        gauge(&mut text, name, help, bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let (name, help) = ("process_open_fds", "Open files of this process");
        gauge(&mut text, name, help, open.count());
    }
    let own = tokio::time::timeout(ANSWER_MAX, shared.health.metrics(&mut text)).await;
    if own.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// As the kernel counts it.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Lacks(Vec<String>);

    #[async_trait]
    impl Health for Lacks {
        async fn missing(&self) -> Vec<String> {
            self.0.clone()
        }

        async fn metrics(&self, text: &mut String) {
            gauge(text, "casemate_of_test", "One", 1);
        }
    }

    async fn begin(lacks: &[&str], ending: &CancellationToken) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lacks = lacks.iter().map(|&lack| lack.to_owned()).collect();
        let health = Arc::new(Lacks(lacks));
        tokio::spawn(serve(listener, Role::Node, health, ending.clone()));
        address
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_role_is_ready_when_it_lacks_nothing_and_does_not_end() {
        let ending = CancellationToken::new();
        let lacking = begin(&["a node"], &ending).await;
        let answer = get(lacking, "/ready").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("a node"), "{answer}");
        let complete = begin(&[], &ending).await;
        assert!(get(complete, "/ready").await.starts_with("HTTP/1.1 200"));
        ending.cancel();
        let answer = get(complete, "/ready").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(get(complete, "/health").await.contains("ok"));
    }

    #[tokio::test]
    async fn those_who_say_nothing_lose_their_places() {
        let at = begin(&[], &CancellationToken::new()).await;
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 20 {
            let mut one = tokio::net::TcpStream::connect(at).await.unwrap();
            one.write_all(b"GET /health HT").await.unwrap();
            idle.push(one);
        }
        assert!(get(at, "/health").await.starts_with("HTTP/1.1 200"));
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(30), idle[0].read_to_end(&mut heard));
        assert!(ended.await.is_ok(), "the first of them is closed");
    }

    #[tokio::test]
    async fn metrics_say_what_runs_and_what_the_role_counts() {
        let at = begin(&[], &CancellationToken::new()).await;
        let answer = get(at, "/metrics").await;
        for part in [
            "role=\"node\"} 1\n",
            "casemate_ready 1\n",
            "casemate_of_test 1\n",
            "process_open_fds ",
        ] {
            assert!(answer.contains(part), "{part} is not in {answer}");
        }
    }
}
