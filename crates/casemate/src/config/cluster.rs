//! `[cluster]` and `[health]`: how the roles of several machines find each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use casemate_cluster::is_member_name;
use serde::{Deserialize, Serialize};

use super::{Flags, Secret, is_place};

/// Of calls between machines, and of nodes' gates.
const PORT: u16 = 8082;
/// Less would take a node's restart for its loss.
const LOST_AFTER_MIN: u64 = 60;
const LOST_AFTER_MAX: u64 = 30 * 24 * 3600;
/// Addresses of API servers that are tried in turn.
const API_MAX: usize = 64;

/// What a process is started as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// All roles, on this machine.
    #[default]
    Up,
    Api,
    Edge,
    Node,
}

impl Role {
    /// As in commands and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Api => "api",
            Self::Edge => "edge",
            Self::Node => "node",
        }
    }
}

/// `[cluster]`: of `casemate api`, `edge` and `node`; nothing of `up`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// `ADDRESS:PORT` of an API server's calls from other machines, and of a node's gate. Nobody
    /// comes through without a certificate or, at API servers, a join token.
    pub listen: String,
    /// `HOST:PORT` of the API servers' calls, as nodes and edges reach them. Of a URL the host counts,
    /// with port 8082.
    pub api: Vec<String>,
    /// Under which this machine belongs to the cluster. Empty: made of role and instance.
    pub name: String,
    /// `HOST:PORT` under which others reach this node's gate. Empty: `cluster.listen`, where that
    /// is one address.
    pub address: String,
    /// `NAME=VALUE`: what placement may ask of this node.
    pub labels: Vec<String>,
    /// With which this machine joins at its first start.
    pub join_token: Secret,
    /// Seconds for which no API server has reached a node before it is given up for lost: what ran there
    /// takes no places then. 0: only by `casemate cluster fence`; otherwise 60 at least. Of API servers,
    /// the same for all.
    pub lost_after_seconds: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            listen: format!("0.0.0.0:{PORT}"),
            api: Vec::new(),
            name: String::new(),
            address: String::new(),
            labels: Vec::new(),
            join_token: Secret::default(),
            lost_after_seconds: 600,
        }
    }
}

/// `[health]`: the listener of each role for whoever looks after it; `up` has none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// `ADDRESS:PORT` of `/health`, `/ready` and `/metrics`, in clear and for everybody who reaches
    /// it.
    pub listen: String,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8090".into(),
        }
    }
}

/// The same, checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterConfig {
    pub listen: SocketAddr,
    pub health_listen: SocketAddr,
    /// `host:port` each.
    pub api: Vec<String>,
    pub name: Option<String>,
    /// `host:port`; `None`: not said, and not to be guessed.
    pub address: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub join_token: Secret,
    /// `None`: never by itself.
    pub lost_after: Option<Duration>,
}

impl ClusterConfig {
    pub(super) fn check(raw: &Cluster, health: &Health, flags: &Flags) -> anyhow::Result<Self> {
        let of_flags = &flags.cluster;
        let listen = of_flags.listen.as_ref().unwrap_or(&raw.listen);
        let listen: SocketAddr = parse("cluster.listen", listen)?;
        let health_listen = of_flags.health_listen.as_ref().unwrap_or(&health.listen);
        let health_listen = parse("health.listen", health_listen)?;
        let api = match of_flags.api.is_empty() {
            true => &raw.api,
            false => &of_flags.api,
        };
        ensure!(
            api.len() <= API_MAX,
            "cluster.api has more than {API_MAX} addresses"
        );
        let api: anyhow::Result<_> = api.iter().map(|text| api_server(text)).collect();
        let name = of_flags.name.as_ref().unwrap_or(&raw.name);
        ensure!(
            name.is_empty() || is_member_name(name),
            "cluster.name: {name:?} cannot be a member's name: lower-case letters, digits and \
             hyphens, 63 at most"
        );
        let address = of_flags.address.as_ref().unwrap_or(&raw.address);
        ensure!(
            address.is_empty() || is_address(address),
            "cluster.address: {address:?} is not HOST:PORT"
        );
        let address = match address.is_empty() {
            false => Some(address.clone()),
            true => (!listen.ip().is_unspecified()).then(|| listen.to_string()),
        };
        let labels = match of_flags.labels.is_empty() {
            true => &raw.labels,
            false => &of_flags.labels,
        };
        let labels: anyhow::Result<_> = labels.iter().map(|text| label(text)).collect();
        let join_token = of_flags.join_token.clone();
        let lost_after = raw.lost_after_seconds;
        ensure!(
            lost_after == 0 || (LOST_AFTER_MIN..=LOST_AFTER_MAX).contains(&lost_after),
            "cluster.lost_after_seconds is 0 or {LOST_AFTER_MIN} to {LOST_AFTER_MAX}"
        );
        Ok(Self {
            listen,
            health_listen,
            api: api?,
            name: (!name.is_empty()).then(|| name.clone()),
            address,
            labels: labels?,
            join_token: join_token.unwrap_or_else(|| raw.join_token.clone()),
            lost_after: (lost_after > 0).then(|| Duration::from_secs(lost_after)),
        })
    }
}

// Of the flags below what an API server has use for. No document comment: it would take the place of
// the command's own in the help.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct ApiFlags {
    /// Where calls of nodes and edges come.
    #[arg(long, value_name = "ADDR:PORT")]
    cluster_listen: Option<String>,
    /// Where /health, /ready and /metrics are.
    #[arg(long, value_name = "ADDR:PORT")]
    health_listen: Option<String>,
    /// Under which this server belongs to the cluster.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl From<ApiFlags> for ClusterFlags {
    fn from(flags: ApiFlags) -> Self {
        Self {
            listen: flags.cluster_listen,
            health_listen: flags.health_listen,
            name: flags.name,
            ..Self::default()
        }
    }
}

// The same of an edge.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct EdgeFlags {
    /// Where /health, /ready and /metrics are.
    #[arg(long, value_name = "ADDR:PORT")]
    health_listen: Option<String>,
    /// Where API servers take calls of nodes and edges; several are parted by commas.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    api: Vec<String>,
    /// Under which this machine belongs to the cluster.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// With which this machine joins at its first start; better by JOIN_TOKEN, which others of this
    /// machine cannot see.
    #[arg(long, value_name = "TOKEN", value_parser = secret)]
    join_token: Option<Secret>,
}

impl From<EdgeFlags> for ClusterFlags {
    fn from(flags: EdgeFlags) -> Self {
        Self {
            health_listen: flags.health_listen,
            api: flags.api,
            name: flags.name,
            join_token: flags.join_token,
            ..Self::default()
        }
    }
}

// All of them, of a node and of a machine that joins.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct ClusterFlags {
    /// Where calls of other machines come.
    #[arg(
        id = "cluster_listen",
        long = "cluster-listen",
        value_name = "ADDR:PORT"
    )]
    pub listen: Option<String>,
    /// Where /health, /ready and /metrics are.
    #[arg(long, value_name = "ADDR:PORT")]
    pub health_listen: Option<String>,
    /// Where API servers take calls of nodes and edges; several are parted by commas.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub api: Vec<String>,
    /// Under which this machine belongs to the cluster.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Under which others reach this node.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// What placement may ask of this node.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// With which this machine joins at its first start; better by JOIN_TOKEN, which others of this
    /// machine cannot see.
    #[arg(long, value_name = "TOKEN", value_parser = secret)]
    pub join_token: Option<Secret>,
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

fn parse(key: &str, text: &str) -> anyhow::Result<SocketAddr> {
    let parsed = text.parse();
    parsed.with_context(|| format!("{key}: {text:?} is not ADDRESS:PORT"))
}

/// A name or an address of IPv4, and a port.
fn is_address(text: &str) -> bool {
    text.contains(':') && is_place(text)
}

/// The port of a URL is the REST API's.
fn api_server(text: &str) -> anyhow::Result<String> {
    let place = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let address = match place {
        Some(place) => {
            let place = place.strip_suffix('/').unwrap_or(place);
            let host = place.split_once(':').map_or(place, |(host, _)| host);
            format!("{host}:{PORT}")
        }
        None => text.to_owned(),
    };
    ensure!(
        is_address(&address),
        "cluster.api: {text:?} is not HOST:PORT"
    );
    Ok(address)
}

fn label(text: &str) -> anyhow::Result<(String, String)> {
    let parted = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) =
        parted.with_context(|| format!("cluster.labels: {text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}
