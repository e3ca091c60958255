//! What may be written in the file or the environment, with defaults. Unknown keys are refused.
//!
//! Every key has a value here (empty text means "not set"), so that the table of defaults is also
//! the list of keys and of their types.

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use super::Secret;
use super::artifacts::Bucket;
use super::cluster::{Cluster, Health};
use super::images::{Builds, Images};
use super::kept::{History, Uploads};
use super::stores::{Database, Redis};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    pub server: Server,
    pub tls: Tls,
    pub auth: Auth,
    pub log: Log,
    pub limits: Limits,
    pub node: Node,
    pub network: Network,
    pub guest: Guest,
    pub history: History,
    pub images: Images,
    pub builds: Builds,
    pub uploads: Uploads,
    pub warm_pool: WarmPool,
    pub rate_limits: RateLimits,
    pub database: Database,
    pub redis: Redis,
    pub cluster: Cluster,
    pub health: Health,
    pub artifacts: Bucket,
}

impl RawConfig {
    pub fn defaults_as_table() -> toml::Table {
        toml::Table::try_from(Self::default()).expect("the defaults are plain tables")
    }
}

/// `[server]`: the front door.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Where everything is kept. Not on overlayfs, NFS or tmpfs.
    pub data_dir: String,
    /// `ADDRESS:PORT` of API and edge. Anything but loopback is reachable by others; keys and
    /// tokens then travel in clear until TLS stands in front.
    pub listen: String,
    /// Name (and port) under which clients reach us. Empty: `localhost:<port>`.
    pub domain: String,
    /// `http://` or `https://`, a name and perhaps a port: what links that clients get begin with,
    /// where a proxy in front has another scheme or host than we see. Empty: as each client came.
    pub public_url: String,
    /// More host names on which the routing headers of sandboxes are honoured.
    pub edge_hosts: Vec<String>,
    /// Client connections at once; one more is answered 503.
    pub connections_max: usize,
    /// Requests at once into one sandbox; -1 is no limit. Beyond it 429.
    pub sandbox_connections_max: i64,
    /// Who may read `/metrics`: `token` or `public`.
    pub metrics: String,
    /// Bearer token for `/metrics`. Empty: only the admin token opens it from afar.
    pub scrape_token: Secret,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/casemate".into(),
            listen: "127.0.0.1:8080".into(),
            domain: String::new(),
            public_url: String::new(),
            edge_hosts: Vec::new(),
            connections_max: 16_384,
            sandbox_connections_max: -1,
            metrics: "token".into(),
            scrape_token: Secret::default(),
        }
    }
}

/// `[tls]`: https beside http. What each key means to whom is checked in `config/tls.rs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// `off`, `local`, `files` or `acme`: where the certificate comes from.
    pub mode: String,
    /// `ADDRESS:PORT` of https.
    pub listen: String,
    /// `ADDRESS:PORT` of a plain listener that answers ACME's challenges and sends everybody else
    /// to https. Empty: none.
    pub http_listen: String,
    /// With `files`: the chain, the server's certificate first; PEM.
    pub certificate: String,
    /// With `files`: its private key; PEM.
    pub key: String,
    /// With `acme`: the authority's directory.
    pub acme_directory: String,
    /// The operator agrees to the authority's terms; without it nothing is asked of it.
    pub acme_terms_agreed: bool,
    /// E-mail addresses that the authority may write to.
    pub acme_contact: Vec<String>,
    /// PEM file of the authority behind the directory's own certificate. Empty: those that the
    /// system knows.
    pub acme_ca: String,
    /// `http-01`, or `dns-01`, which alone gives the wildcard that `get_host()` needs.
    pub acme_challenge: String,
    /// With `dns-01`: a program, run as `PROGRAM present|cleanup NAME VALUE`.
    pub acme_dns_hook: String,
    /// Seconds for a record to reach all name servers. Too short fails, too long only waits.
    pub acme_dns_wait_seconds: u64,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            mode: "off".into(),
            listen: "127.0.0.1:8443".into(),
            http_listen: String::new(),
            certificate: String::new(),
            key: String::new(),
            acme_directory: "https://acme-v02.api.letsencrypt.org/directory".into(),
            acme_terms_agreed: false,
            acme_contact: Vec::new(),
            acme_ca: String::new(),
            acme_challenge: "http-01".into(),
            acme_dns_hook: String::new(),
            acme_dns_wait_seconds: 30,
        }
    }
}

/// `[auth]`: secrets of the installation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Root secret, at least 32 bytes. Empty: made once in `DIR/secrets`. Another one makes all
    /// sandbox tokens invalid.
    pub api_key_secret: Secret,
}

/// `[log]`: our own log, on standard error.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,casemate_edge=debug`.
    pub level: String,
    /// `text` or `json`.
    pub format: String,
}

impl Log {
    pub fn is_json(&self) -> bool {
        self.format == "json"
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: "text".into(),
        }
    }
}

/// `[limits]`: what at most.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Sandboxes on this node; beyond it creates are 503.
    pub sandboxes_max: u32,
    /// Sandboxes of a team; beyond it creates are 429.
    pub team_sandboxes_max: u32,
    /// Seconds of life when a create names none.
    pub sandbox_timeout_seconds: u32,
    /// Longest life, hours; beyond it 400.
    pub life_hours_max: u32,
    /// The sum of memory limits may be this many times the machine's memory.
    pub memory_overcommit: f64,
    /// Memory that must stay available, MiB; below it creates are 503.
    pub memory_reserve_mib: u64,
    /// Creates that boot at once; too high makes all of them slow.
    pub boots_max: usize,
    /// Creates that wait for their turn; beyond it 503.
    pub queue_max: usize,
    /// Processor limit of sandboxes of the base template.
    pub vcpus: u32,
    /// Memory limit of sandboxes of the base template, MiB.
    pub memory_mib: u32,
    /// Bytes that a sandbox may write to its root, MiB.
    pub disk_mib: u32,
    /// Processes and threads in a sandbox.
    pub processes_max: u32,
    /// Days that a paused sandbox is kept; 0 is for ever. Then it ends.
    pub paused_days: u32,
    /// Days that a snapshot is kept; 0 is for ever. Those of which sandboxes run or rest stay.
    pub snapshot_days: u32,
    /// Builds of templates that a team may have waiting or under way; beyond it 429.
    pub team_builds_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let base = casemate_types::Resources::BASE;
        Self {
            sandboxes_max: 1000,
            team_sandboxes_max: 1000,
            sandbox_timeout_seconds: 300,
            life_hours_max: casemate_types::limits::LIFE_HOURS_MAX_DEFAULT,
            memory_overcommit: 32.0,
            memory_reserve_mib: 512,
            boots_max: 64,
            queue_max: 1024,
            vcpus: base.vcpus,
            memory_mib: base.memory_mib,
            disk_mib: base.disk_mib,
            processes_max: base.processes_max,
            paused_days: 0,
            snapshot_days: 0,
            team_builds_max: 20,
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=2000).contains(&self.sandboxes_max),
            "limits.sandboxes_max (MAX_SANDBOXES) must be 1 to 2000, got {}",
            self.sandboxes_max
        );
        ensure!(
            self.team_sandboxes_max >= 1,
            "limits.team_sandboxes_max must be at least 1"
        );
        ensure!(
            (1..=1000).contains(&self.team_builds_max),
            "limits.team_builds_max must be 1 to 1000, got {}",
            self.team_builds_max
        );
        let longest = self.life_hours_max.saturating_mul(3600);
        ensure!(
            (1..=24 * 365).contains(&self.life_hours_max),
            "limits.life_hours_max must be 1 to 8760, got {}",
            self.life_hours_max
        );
        ensure!(
            (1..=longest).contains(&self.sandbox_timeout_seconds),
            "limits.sandbox_timeout_seconds (SANDBOX_TIMEOUT) must be 1 to {longest}, got {}",
            self.sandbox_timeout_seconds
        );
        ensure!(
            self.memory_overcommit.is_finite() && self.memory_overcommit > 0.0,
            "limits.memory_overcommit must be above 0"
        );
        ensure!(
            (1..=1024).contains(&self.boots_max),
            "limits.boots_max must be 1 to 1024"
        );
        ensure!(
            (1..=64).contains(&self.vcpus),
            "limits.vcpus must be 1 to 64"
        );
        ensure!(
            (128..=8192).contains(&self.memory_mib),
            "limits.memory_mib must be 128 to 8192, got {}",
            self.memory_mib
        );
        ensure!(self.disk_mib >= 64, "limits.disk_mib must be at least 64");
        ensure!(
            self.processes_max >= 16,
            "limits.processes_max must be at least 16"
        );
        Ok(())
    }
}

/// `[node]`: the sandbox manager of this machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Prepared slots and layers; each costs about 0.4 MiB. Too low makes bursts wait.
    pub slot_stock: usize,
    /// Processes that create sandboxes; about the number of processors.
    pub launchers: usize,
    /// Largest size of the pool of writable layers, MiB; 0 is 60 % of the free space.
    pub pool_mib_max: u64,
    /// What must stay free on the disk of the data directory, MiB: below it creates are 503, and
    /// the pool takes none of it. Of a small disk a twentieth, if that is less.
    pub disk_reserve_mib: u64,
    /// What paused sandboxes may hold of the machine's memory together, MiB; 0 is a quarter of it.
    /// Beyond it the one that rested for longest keeps its files alone.
    pub paused_memory_mib: u64,
    /// A sandbox that the store does not know is kept this long.
    pub orphan_grace_seconds: u64,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            slot_stock: 32,
            launchers: 2,
            pool_mib_max: 0,
            disk_reserve_mib: 512,
            paused_memory_mib: 0,
            orphan_grace_seconds: 600,
        }
    }
}

impl Node {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=1024).contains(&self.slot_stock),
            "node.slot_stock must be 1 to 1024"
        );
        ensure!(
            (1..=32).contains(&self.launchers),
            "node.launchers must be 1 to 32"
        );
        let pool = self.pool_mib_max;
        ensure!(
            pool == 0 || pool >= 1024,
            "node.pool_mib_max must be 0 or at least 1024"
        );
        Ok(())
    }
}

/// `[network]`: what sandboxes reach.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Range that instances on this host lease their sandboxes' addresses from.
    pub subnet_base: String,
    /// Private ranges that sandboxes may reach. Named one by one; none by default.
    pub allow_ranges: Vec<String>,
    /// Resolvers that ours asks. Empty: those of the host's `/etc/resolv.conf`.
    pub dns_upstreams: Vec<String>,
    /// Connections that a sandbox may hold at once; new ones beyond it are refused.
    pub conntrack_per_sandbox_max: u32,
    /// Whether we add the one rule that another firewall of this host needs.
    pub manage_firewall: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            subnet_base: "100.64.0.0/10".into(),
            allow_ranges: Vec::new(),
            dns_upstreams: Vec::new(),
            conntrack_per_sandbox_max: 4096,
            manage_firewall: false,
        }
    }
}

/// `[guest]`: what of the host's settings sandboxes get. `host`, `none`, or a path.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guest {
    /// Extra certificate authorities: `host` is `/usr/local/share/ca-certificates`.
    pub ca_certificates: String,
    /// apt's sources and options.
    pub apt: String,
    /// pip's settings.
    pub pip: String,
    /// npm's settings.
    pub npm: String,
}

impl Default for Guest {
    fn default() -> Self {
        let host = || "host".to_owned();
        Self {
            ca_certificates: host(),
            apt: host(),
            pip: host(),
            npm: host(),
        }
    }
}

/// `[warm_pool]`: started sandboxes of templates with a start command that wait for being asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmPool {
    /// Of all templates together; 0: none. Each holds what its start command takes.
    pub size: usize,
    /// Of one template, for one team; 0: none.
    pub size_per_template: usize,
    /// Seconds that one waits before it ends, and that a use is remembered. Too short starts them
    /// for nothing.
    pub idle_seconds: u64,
}

impl Default for WarmPool {
    fn default() -> Self {
        Self {
            size: 20,
            size_per_template: 5,
            idle_seconds: 300,
        }
    }
}

impl WarmPool {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.size <= 10_000,
            "warm_pool.size must be 0 to 10000, got {}",
            self.size
        );
        ensure!(
            self.size_per_template <= 10_000,
            "warm_pool.size_per_template must be 0 to 10000, got {}",
            self.size_per_template
        );
        ensure!(
            (10..=86_400).contains(&self.idle_seconds),
            "warm_pool.idle_seconds must be 10 to 86400, got {}",
            self.idle_seconds
        );
        Ok(())
    }
}

/// `[rate_limits]`: how often each team, and each user, may ask the API. A rate of 0 is no limit.
/// Beyond it requests are 429.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimits {
    /// Creates and forks of sandboxes and starts of builds, each second, in the long run.
    pub creates_per_second: f64,
    /// As many may come at once.
    pub creates_burst: u32,
    /// Everything else that changes something, each second. Too low keeps clients from ending
    /// sandboxes.
    pub changes_per_second: f64,
    /// As many may come at once.
    pub changes_burst: u32,
    /// Requests that change nothing, each second.
    pub reads_per_second: f64,
    /// As many may come at once.
    pub reads_burst: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            creates_per_second: 0.0,
            creates_burst: 100,
            changes_per_second: 0.0,
            changes_burst: 200,
            reads_per_second: 0.0,
            reads_burst: 200,
        }
    }
}

impl RateLimits {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (key, per_second, burst) in [
            ("creates", self.creates_per_second, self.creates_burst),
            ("changes", self.changes_per_second, self.changes_burst),
            ("reads", self.reads_per_second, self.reads_burst),
        ] {
            ensure!(
                per_second == 0.0 || (0.001..=100_000.0).contains(&per_second),
                "rate_limits.{key}_per_second must be 0 or 0.001 to 100000, got {per_second}"
            );
            ensure!(
                (1..=100_000).contains(&burst),
                "rate_limits.{key}_burst must be 1 to 100000, got {burst}"
            );
        }
        Ok(())
    }
}
