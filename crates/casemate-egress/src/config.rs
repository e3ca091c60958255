//! Settings of the egress process, as the node hands them over.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Whom the resolver asks, and the limits of resolver and proxy. A limit for one slot is its share
/// while others have few places; it shrinks as they take more.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressConfig {
    pub upstreams: Upstreams,
    /// Questions of one slot under way at once; one more is answered `REFUSED`.
    pub questions_per_slot_max: usize,
    /// Questions of all slots under way at once; one more is answered `SERVFAIL`, and so is one
    /// beyond a share that others shrank. Each holds a socket and some 10 KiB.
    pub questions_max: usize,
    /// TCP connections of one slot at once; one more is closed.
    pub connections_per_slot_max: usize,
    /// TCP connections of all slots at once; one more is closed.
    pub connections_max: usize,
    /// How long one name server may take before the next is asked.
    pub upstream_timeout: Duration,
    /// How long a TCP connection may stay without a question.
    pub idle_timeout: Duration,
    /// Proxied connections of one slot at once; one more is closed.
    pub proxied_per_slot_max: usize,
    /// Proxied connections of all slots at once; one more is closed. Each holds two descriptors and
    /// some 20 KiB; one that carries HTTP fast, three times that.
    pub proxied_max: usize,
    /// How long a TLS hello or an HTTP head may take to arrive, from the connection's begin or the
    /// end of the former answer; then the connection is closed.
    pub head_timeout: Duration,
    /// How long one address of a name may take to accept a connection before the next is tried.
    pub dial_timeout: Duration,
    /// How long a slot's further connections to a name use the addresses that were found for it.
    pub lookup_kept: Duration,
    /// How long a proxied connection may stay without a byte in either direction.
    pub proxied_idle_timeout: Duration,
    /// Closed ranges that the operator opens by name: names may lead there too.
    pub opened: Vec<IpNet>,
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
            proxied_per_slot_max: 256,
            proxied_max: 2048,
            head_timeout: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(10),
            lookup_kept: Duration::from_secs(5),
            // A model that thinks says nothing for minutes.
            proxied_idle_timeout: Duration::from_secs(30 * 60),
            opened: Vec::new(),
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
