//! `GET /metrics`, in the guide's names, and who may read it (decision 10).

use std::fmt::Write;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, FORWARDED, VIA};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use casemate_types::peer::PeerAddr;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use subtle::ConstantTimeEq;

use crate::error::ApiError;
use crate::router::ApiState;

/// Seconds; a create is some milliseconds, a request has 70 seconds at most.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0,
];

/// Who may read the metrics.
pub enum MetricsAccess {
    /// Everybody; must be set by name.
    Public,
    /// Holders of the scrape token or the administrator's.
    Guarded {
        scrape_token: Option<ScrapeToken>,
        /// Also a caller on this machine that came through no proxy.
        open_on_loopback: bool,
    },
}

/// What a scraper shows. It has no `Debug` on purpose.
pub struct ScrapeToken(String);

impl ScrapeToken {
    pub fn new(token: String) -> Self {
        Self(token)
    }

    fn matches(&self, given: &str) -> bool {
        !self.0.is_empty() && bool::from(self.0.as_bytes().ct_eq(given.as_bytes()))
    }
}

pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Histogram,
    sandboxes: Gauge,
    queue: Gauge,
    starting: Gauge,
    node_connected: Gauge,
    slots_ready: Gauge,
    layers_ready: Gauge,
    warm: Gauge,
    disk_free: Gauge,
    disk_reserve: Gauge,
    layers_left: Gauge,
    cache: Gauge,
    cache_max: Gauge,
    evictions: Gauge,
    bucket_failures: Gauge,
    creates: Gauge,
    create_failures: Gauge,
    uncounted: Counter,
    /// Said only where there is one: a zero would look like an end long ago.
    certificate_end: Family<[(&'static str, &'static str); 0], Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: MethodLabel,
    status: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum MethodLabel {
    Get,
    Post,
    Put,
    Patch,
    Delete,
    Head,
    Options,
    Other,
}

impl EncodeLabelValue for MethodLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> std::fmt::Result {
        encoder.write_str(match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Other => "OTHER",
        })
    }
}

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            Method::HEAD => Self::Head,
            Method::OPTIONS => Self::Options,
            _ => Self::Other,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("http_requests", "Answered requests", requests.clone());
        let durations = Histogram::new(BUCKETS);
        registry.register(
            "http_request_duration_seconds",
            "Time to answer a request",
            durations.clone(),
        );
        let uncounted = Counter::default();
        registry.register(
            "casemate_rate_limit_failures",
            "Requests that passed because their rate could not be counted",
            uncounted.clone(),
        );
        let certificate_end = Family::default();
        registry.register(
            "casemate_tls_certificate_end_seconds",
            "When the certificate of https ends, in seconds since 1970",
            certificate_end.clone(),
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Self {
            sandboxes: gauge("e2b_active_sandboxes_total", "Sandboxes that run or start"),
            queue: gauge(
                "e2b_sandbox_queue_length",
                "Creates that wait for admission",
            ),
            starting: gauge("casemate_sandboxes_starting", "Creates at the node"),
            node_connected: gauge("casemate_nodes_connected", "Nodes that speak with control"),
            slots_ready: gauge("casemate_slots_ready", "Prepared network slots"),
            layers_ready: gauge("casemate_layers_ready", "Prepared writable layers"),
            warm: gauge(
                "casemate_sandboxes_warm",
                "Started sandboxes that wait for being asked for",
            ),
            disk_free: gauge(
                "casemate_disk_free_bytes",
                "Free space on the disk of the data directory",
            ),
            disk_reserve: gauge(
                "casemate_disk_reserve_bytes",
                "Below so much free space creates are refused",
            ),
            layers_left: gauge(
                "casemate_sandbox_disk_left_bytes",
                "What sandboxes can write together before their disk is full",
            ),
            cache: gauge(
                "casemate_cache_bytes",
                "Layers and kept files that lie in the bucket too",
            ),
            cache_max: gauge(
                "casemate_cache_bytes_max",
                "Beyond it the least recently used of them go",
            ),
            evictions: gauge(
                "casemate_cache_evictions",
                "Of them removed to make room since the start",
            ),
            bucket_failures: gauge(
                "casemate_bucket_failures",
                "Times since the start that something could not be stored in the bucket, or had from it",
            ),
            creates: gauge(
                "casemate_creates_succeeded",
                "Sandboxes made since the start",
            ),
            create_failures: gauge(
                "casemate_creates_failed",
                "Failed placements since the start",
            ),
            certificate_end,
            uncounted,
            requests,
            durations,
            registry,
        }
    }
}

impl Metrics {
    /// A request passed that no rate limit counted.
    pub(crate) fn note_uncounted(&self) {
        self.uncounted.inc();
    }
}

/// Counts every request, also those that no operation answers.
pub(crate) async fn count(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let took = started.elapsed();
    let status = response.status().as_u16();
    let labels = RequestLabels {
        method: (&method).into(),
        status,
    };
    state.metrics.requests.get_or_create(&labels).inc();
    state.metrics.durations.observe(took.as_secs_f64());
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(%method, path, status, took_us, "answered {method} {path} with {status}");
    response
}

#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, body = String), (status = 401, body = casemate_wire::ErrorBody))
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    request: Request,
) -> Result<Response, ApiError> {
    if !may_read(&state, &request) {
        return Err(ApiError::unauthorized(
            "the metrics need the scrape token or the admin token",
        ));
    }
    refresh(&state);
    let mut text = String::new();
    encode(&mut text, &state.metrics.registry)
        .map_err(|error| ApiError::internal("Error writing metrics", &error))?;
    let open = request
        .headers()
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("application/openmetrics-text"));
    let kind = if open {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

fn may_read(state: &ApiState, request: &Request) -> bool {
    let headers = request.headers();
    match state.metrics_access.as_ref() {
        MetricsAccess::Public => true,
        MetricsAccess::Guarded {
            scrape_token,
            open_on_loopback,
        } => {
            let scrape = |token: &ScrapeToken| bearer(headers).is_some_and(|t| token.matches(t));
            scrape_token.as_ref().is_some_and(scrape)
                || admin(state, headers)
                || (*open_on_loopback && from_this_machine(request))
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}

fn admin(state: &ApiState, headers: &HeaderMap) -> bool {
    let given = headers.get("x-admin-token").and_then(|v| v.to_str().ok());
    given.is_some_and(|given| state.control.is_admin_token(given))
}

/// From loopback, and not on behalf of somebody else.
fn from_this_machine(request: &Request) -> bool {
    let headers = request.headers();
    let forwarded = headers.contains_key(FORWARDED)
        || headers.contains_key(VIA)
        || headers
            .keys()
            .any(|name| name.as_str().starts_with("x-forwarded-"));
    let peer = request.extensions().get::<PeerAddr>();
    !forwarded && peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback())
}

/// What is read rather than counted.
fn refresh(state: &ApiState) {
    let (metrics, control) = (&state.metrics, &state.control);
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    metrics.sandboxes.set(number(control.sandbox_total()));
    metrics.queue.set(control.queue_length().into());
    metrics.warm.set(number(control.warm_total()));
    let failures = i64::try_from(control.bucket_failures());
    metrics.bucket_failures.set(failures.unwrap_or(i64::MAX));
    if let Some(end) = state.certificate_end.as_ref().and_then(|end| end()) {
        metrics.certificate_end.get_or_create(&[]).set(end);
    }
    for node in control.node_list() {
        let connected = node.connection == casemate_control::nodes::Connection::Connected;
        metrics.node_connected.set(connected.into());
        metrics.starting.set(number(node.starting));
        metrics.slots_ready.set(node.info.slots_ready.into());
        metrics.layers_ready.set(node.info.layers_ready.into());
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        metrics.disk_free.set(bytes(node.info.disk_free_bytes));
        metrics
            .disk_reserve
            .set(bytes(node.info.disk_reserve_bytes));
        metrics.layers_left.set(bytes(node.info.layers_left_bytes));
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let cache = node.info.cache.unwrap_or_default();
        metrics.cache.set(bytes(cache.bytes));
        metrics.cache_max.set(bytes(cache.bytes_max));
        metrics.evictions.set(count(cache.evictions));
        metrics.creates.set(count(node.create_successes));
        metrics.create_failures.set(count(node.create_fails));
    }
}
