//! Settings of the egress process, as the node hands them over.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whom the resolver asks, and its limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressConfig {
    pub upstreams: Upstreams,
    /// Questions of one slot under way at once; one more is answered `REFUSED`.
    pub questions_per_slot_max: usize,
    /// Questions of all slots under way at once; one more is answered `SERVFAIL`. Each holds a
    /// socket and some 10 KiB.
    pub questions_max: usize,
    /// TCP connections of one slot at once; one more is closed.
    pub connections_per_slot_max: usize,
    /// TCP connections of all slots at once; one more is closed.
    pub connections_max: usize,
    /// How long one name server may take before the next is asked.
    pub upstream_timeout: Duration,
    /// How long a TCP connection may stay without a question.
    pub idle_timeout: Duration,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            upstreams: Upstreams::ResolvConf("/etc/resolv.conf".into()),
            questions_per_slot_max: 64,
            questions_max: 512,
            connections_per_slot_max: 8,
            connections_max: 128,
            // A stub resolver gives up after 5 s: two name servers fit.
            upstream_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(10),
        }
    }
}

/// The name servers that are asked for slots without servers of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upstreams {
    /// Those of a `resolv.conf`, read again when it changes.
    ResolvConf(PathBuf),
    /// These, in order.
    Fixed(Vec<IpAddr>),
}
