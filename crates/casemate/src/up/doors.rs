//! The platform's listeners: opened by root, handed from one platform to the next, served by the
//! control process.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Role};

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// API and edge.
    Http,
    /// The same with TLS.
    Https,
    /// Sends everybody to https.
    Redirect,
    /// An API server's calls of members, or a node's gate.
    Cluster,
    /// For whoever looks after a role.
    Health,
}

pub type Doors = BTreeMap<Door, TcpListener>;

/// Connections that wait to be accepted, at most (and at most `net.core.somaxconn`). Enough for
/// those that come while one platform takes over from another.
const QUEUE: i32 = 4096;

/// How long a listener may be taken: a platform that was killed leaves its control process behind
/// for an instant.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// Where each door is, by the settings.
pub fn wanted(config: &Config) -> BTreeMap<Door, SocketAddr> {
    let mut wanted = BTreeMap::new();
    if config.role != Role::Up {
        wanted.insert(Door::Health, config.cluster.health_listen);
    }
    if let Role::Api | Role::Node = config.role {
        wanted.insert(Door::Cluster, config.cluster.listen);
    }
    if config.role == Role::Node {
        return wanted;
    }
    wanted.insert(Door::Http, config.listen);
    if let Some(tls) = &config.tls {
        wanted.insert(Door::Https, tls.listen);
        wanted.extend(tls.http_listen.map(|at| (Door::Redirect, at)));
    }
    wanted
}

/// The one that says on `/ready` whether all is well.
pub fn looked_at(config: &Config) -> SocketAddr {
    match config.role {
        Role::Node => config.cluster.health_listen,
        Role::Up | Role::Api | Role::Edge => config.listen,
    }
}

/// Opens what is not among `doors` yet.
pub async fn open(config: &Config, mut doors: Doors) -> anyhow::Result<Doors> {
    for (door, at) in wanted(config) {
        if let Entry::Vacant(missing) = doors.entry(door) {
            missing.insert(listen(at).await?);
        }
    }
    Ok(doors)
}

/// Opens those that the platform that runs, with doors at `theirs`, has elsewhere or not at all.
pub async fn elsewhere(
    config: &Config,
    theirs: &BTreeMap<Door, SocketAddr>,
) -> anyhow::Result<Doors> {
    let mut doors = Doors::new();
    for (door, at) in wanted(config) {
        if theirs.get(&door) != Some(&at) {
            doors.insert(door, listen(at).await?);
        }
    }
    Ok(doors)
}

pub async fn listen(at: SocketAddr) -> anyhow::Result<TcpListener> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let bound = loop {
        match TcpListener::bind(at) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(POLL).await;
            }
            bound => break bound,
        }
    };
    let listener = bound.with_context(|| {
        format!("cannot listen at {at} (`casemate status` shows whether it is another casemate)")
    })?;
    rustix::net::listen(&listener, QUEUE).context("listen")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
