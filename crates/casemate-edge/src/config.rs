//! What an operator sets. Every limit says what happens at it.

use std::num::NonZeroU32;
use std::time::Duration;

/// Names and limits of one edge.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// The platform's domain as clients write it, with a port if it has one: `localhost:8080`.
    pub domain: String,
    /// Further hosts on which routing headers count: the machine's host name and `edge_hosts`.
    pub hosts: Vec<String>,
    pub limits: EdgeLimits,
}

impl EdgeConfig {
    /// The configuration for a domain, with default limits and no further hosts.
    pub fn new(domain: impl Into<String>) -> Self {
        Self {
            domain: domain.into(),
            hosts: Vec::new(),
            limits: EdgeLimits::default(),
        }
    }
}

/// Limits of one edge.
#[derive(Debug, Clone)]
pub struct EdgeLimits {
    /// Client connections open at once. For one more, those without a request that were idle for
    /// longest are closed; where there is none it is answered 503 and closed. Default 16384.
    pub connections_max: usize,
    /// Time without a request for which a connection is never closed to make room, so that a new
    /// one can send its head. Default 1 s.
    pub idle_spared: Duration,
    /// Requests open at once to one sandbox; one more is answered 429. Default none.
    pub sandbox_requests_max: Option<NonZeroU32>,
    /// Bytes of one request head; a larger one is answered 431. Default 64 KiB. On HTTP/1.1 a
    /// connection buffers at most about twice this before it is refused.
    pub head_bytes_max: usize,
    /// Time for a new connection to send its first request head, and for any head once it has
    /// begun; then the connection is closed. Default 10 s.
    pub head_timeout: Duration,
    /// Time for which a client's connection may stay without a request. Default 620 s.
    pub client_idle_timeout: Duration,
    /// Streams open at once on one HTTP/2 connection; further ones wait. Default 100, the least that
    /// RFC 9113 recommends: a command that runs holds one, and few clients open a second connection,
    /// but each may make us hold some 90 KiB of an answer that is not read.
    pub h2_streams_max: u32,
    /// Connections kept open to one sandbox's envd; further ones are closed after their request.
    /// Default 16.
    pub envd_idle_max: usize,
    /// How long an unused connection to envd is kept. Default 60 s: below envd's own 640 s, so
    /// that it never closes one under a request, and short because each costs the sandbox memory.
    pub envd_idle_timeout: Duration,
    /// Time for one dial; then the port counts as closed. Default 30 s.
    pub dial_timeout: Duration,
    /// Dials before a refusing port counts as closed, with waits of 100, 200, … ms between.
    /// Default 1: a dial into the sandbox's own namespace answers at once (decision 17). Runtimes
    /// whose agent forwards localhost listeners with a delay want 5.
    pub dial_attempts: u32,
    /// Time that open requests have to end once shutdown began; then they are cut. Default 30 s.
    pub drain_timeout: Duration,
    /// The same for answers that are streams and for upgraded connections, which may have no end
    /// of their own. Default 5 s.
    pub drain_streams_timeout: Duration,
}

impl EdgeLimits {
    /// Client connections from one address, of IPv6 from one /64 network: half of all, and at it
    /// the same as at `connections_max`, among its own. From loopback there may be all: a proxy
    /// there speaks for everybody.
    pub fn peer_connections_max(&self) -> usize {
        (self.connections_max / 2).max(1)
    }
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            connections_max: 16 * 1024,
            idle_spared: Duration::from_secs(1),
            sandbox_requests_max: None,
            head_bytes_max: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            client_idle_timeout: Duration::from_secs(620),
            h2_streams_max: 100,
            envd_idle_max: 16,
            envd_idle_timeout: Duration::from_secs(60),
            dial_timeout: Duration::from_secs(30),
            dial_attempts: 1,
            drain_timeout: Duration::from_secs(30),
            drain_streams_timeout: Duration::from_secs(5),
        }
    }
}
