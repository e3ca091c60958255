//! One typed configuration (decision 28): a TOML file, then the environment, then flags.
//!
//! [`raw::RawConfig`] is what may be written; [`Config`] is checked and is all that the rest of
//! the program sees. Nothing else reads the environment. `docs/configuration.md` lists every key.

pub mod artifacts;
pub mod cluster;
mod environment;
mod guide;
pub mod images;
pub mod kept;
pub mod raw;
pub mod stores;
pub mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

pub use cluster::{ApiFlags, ClusterConfig, ClusterFlags, EdgeFlags, Role};
pub use raw::RawConfig;
pub use tls::Tls;

/// Where the file is looked for when no `--config` names one; it may be missing.
pub const FILE: &str = "/etc/casemate/casemate.toml";

/// Where an edge listens that is told nothing else.
const EDGE_LISTEN: &str = "127.0.0.1:8081";

/// A value that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() {
            "\"\""
        } else {
            "<redacted>"
        })
    }
}

/// Who may read `/metrics` on the public listener (decision 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsAccess {
    /// The scrape token, the admin token, or a loopback caller of a default installation.
    Token,
    /// Everybody: asked for by name.
    Public,
}

/// Everything the program is told, checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    /// Https, where it is on.
    pub tls: Option<Tls>,
    /// The name under which clients reach us, with the port where it is not the scheme's.
    pub domain: String,
    /// `domain` is what nobody set.
    pub domain_is_default: bool,
    /// What links begin with, without a slash at the end; `None`: as each client came.
    pub public_url: Option<String>,
    pub edge_hosts: Vec<String>,
    pub connections_max: usize,
    pub sandbox_connections_max: Option<usize>,
    pub metrics: MetricsAccess,
    pub scrape_token: Secret,
    pub api_key_secret: Secret,
    pub log: raw::Log,
    pub limits: raw::Limits,
    pub node: raw::Node,
    pub subnet_base: Ipv4Net,
    pub allow_ranges: Vec<IpNet>,
    pub dns_upstreams: Vec<IpAddr>,
    pub conntrack_per_sandbox_max: u32,
    pub manage_firewall: bool,
    pub guest: raw::Guest,
    pub history: kept::History,
    pub images: images::Images,
    pub builds: images::Builds,
    pub uploads: kept::Uploads,
    pub warm_pool: raw::WarmPool,
    pub rate_limits: raw::RateLimits,
    pub database: stores::Database,
    pub redis: stores::Redis,
    pub artifacts: artifacts::Bucket,
    /// What this process is started as.
    pub role: Role,
    pub cluster: ClusterConfig,
    /// An archive to import as the base template.
    pub base: Option<PathBuf>,
    pub orphan_grace: Duration,
}

/// What the command line says; each wins over the file and the environment.
#[derive(Debug, Default, Clone)]
pub struct Flags {
    pub data_dir: Option<PathBuf>,
    pub listen: Option<String>,
    pub tls: Option<String>,
    pub tls_listen: Option<String>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub domain: Option<String>,
    pub config: Option<PathBuf>,
    pub base: Option<PathBuf>,
    pub role: Role,
    pub cluster: ClusterFlags,
}

/// A configuration, and what to tell the operator about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<String>,
}

/// Reads file, environment and flags, and checks the whole.
pub fn load(flags: &Flags) -> anyhow::Result<Loaded> {
    let mut table = RawConfig::defaults_as_table();
    if let Some((path, text)) = read_file(flags.config.as_deref())? {
        environment::merge_file(&mut table, &text)
            .with_context(|| format!("in {}", path.display()))?;
    }
    let mut warnings = Vec::new();
    environment::merge_environment(&mut table, std::env::vars_os(), &mut warnings)?;
    let raw = table
        .try_into::<RawConfig>()
        .context("the configuration does not fit")?;
    let config = check(raw, flags)?;
    Ok(Loaded { config, warnings })
}

fn read_file(named: Option<&Path>) -> anyhow::Result<Option<(PathBuf, String)>> {
    let path = named.unwrap_or(Path::new(FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.into(), text))),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn check(raw: RawConfig, flags: &Flags) -> anyhow::Result<Config> {
    let listen = match flags.role {
        // The API's port is taken where both run.
        Role::Edge if raw.server.listen == raw::Server::default().listen => EDGE_LISTEN,
        Role::Up | Role::Api | Role::Edge | Role::Node => &raw.server.listen,
    };
    let listen = flags.listen.as_deref().unwrap_or(listen);
    let listen: SocketAddr = listen
        .parse()
        .with_context(|| format!("server.listen: {listen:?} is not ADDRESS:PORT"))?;
    let data_dir = match &flags.data_dir {
        // As the shell means it; a file is read from anywhere.
        Some(named) => std::path::absolute(named)
            .with_context(|| format!("the data directory {}", named.display()))?,
        None => raw.server.data_dir.clone().into(),
    };
    ensure!(
        data_dir.is_absolute(),
        "the data directory must be an absolute path, got {data_dir:?}"
    );
    let named = flags
        .domain
        .clone()
        .unwrap_or_else(|| raw.server.domain.clone());
    let domain_is_default = named.is_empty();
    let tls = Tls::check(&raw.tls, flags)?;
    let domain = match &tls {
        _ if !domain_is_default => named,
        Some(tls) => tls.domain(),
        None => format!("localhost:{}", listen.port()),
    };
    check_domain(&domain)?;
    let limits = raw.limits;
    limits.check()?;
    raw.node.check()?;
    raw.history.check()?;
    raw.images.check()?;
    raw.builds.check()?;
    raw.uploads.check()?;
    raw.warm_pool.check()?;
    raw.rate_limits.check()?;
    raw.database.options()?;
    raw.redis.settings()?;
    let artifacts = raw.artifacts.with_environment();
    artifacts.config()?;
    if !raw.auth.api_key_secret.is_empty() {
        ensure!(
            raw.auth.api_key_secret.expose().len() >= 32,
            "auth.api_key_secret (API_KEY_SECRET) must have at least 32 bytes"
        );
    }
    let metrics = match raw.server.metrics.as_str() {
        "token" => MetricsAccess::Token,
        "public" => MetricsAccess::Public,
        other => bail!("server.metrics: {other:?} is neither \"token\" nor \"public\""),
    };
    let config = Config {
        data_dir,
        listen,
        tls,
        domain,
        domain_is_default,
        public_url: public_url(&raw.server.public_url)?,
        edge_hosts: raw.server.edge_hosts,
        connections_max: raw.server.connections_max,
        sandbox_connections_max: usize::try_from(raw.server.sandbox_connections_max).ok(),
        metrics,
        scrape_token: raw.server.scrape_token,
        api_key_secret: raw.auth.api_key_secret,
        log: raw.log,
        limits,
        subnet_base: parse_each("network.subnet_base", [&raw.network.subnet_base])?[0],
        allow_ranges: parse_each("network.allow_ranges", &raw.network.allow_ranges)?,
        dns_upstreams: parse_each("network.dns_upstreams", &raw.network.dns_upstreams)?,
        conntrack_per_sandbox_max: raw.network.conntrack_per_sandbox_max,
        manage_firewall: raw.network.manage_firewall,
        orphan_grace: Duration::from_secs(raw.node.orphan_grace_seconds),
        node: raw.node,
        guest: raw.guest,
        history: raw.history,
        images: raw.images,
        builds: raw.builds,
        uploads: raw.uploads,
        warm_pool: raw.warm_pool,
        rate_limits: raw.rate_limits,
        database: raw.database,
        redis: raw.redis,
        artifacts,
        role: flags.role,
        cluster: ClusterConfig::check(&raw.cluster, &raw.health, flags)?,
        base: flags.base.clone(),
    };
    config.check_tls_names()?;
    Ok(config)
}

fn check_domain(domain: &str) -> anyhow::Result<()> {
    ensure!(
        is_place(domain),
        "domain: {domain:?} is not NAME or NAME:PORT"
    );
    Ok(())
}

/// A name, or an address of IPv4, and perhaps a port.
fn is_place(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "80"));
    let label = |l: &str| {
        !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.len() <= 200 && host.split('.').all(label) && port.parse::<u16>().is_ok()
}

/// What a link can begin with.
fn public_url(text: &str) -> anyhow::Result<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = text.strip_suffix('/').unwrap_or(text);
    let place = ["http://", "https://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    ensure!(
        place.is_some_and(is_place),
        "server.public_url: {text:?} is not http://NAME[:PORT] or https://NAME[:PORT]"
    );
    Ok(Some(url.to_owned()))
}

fn parse_each<'a, T>(
    key: &str,
    texts: impl IntoIterator<Item = &'a String>,
) -> anyhow::Result<Vec<T>>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let parse = |text: &String| text.parse().with_context(|| format!("{key}: {text:?}"));
    texts.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests;
