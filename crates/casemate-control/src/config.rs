//! What the binary tells control; checked there, trusted here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use casemate_artifacts::Artifacts;
use casemate_catalog::{Events, Leases};
use casemate_history::Retention;
use casemate_store::Team;
use casemate_types::Resources;
use casemate_types::limits::LIFE_HOURS_MAX_DEFAULT;
use ipnet::IpNet;

use crate::keys::RootSecret;

/// Settings of the control plane.
pub struct ControlConfig {
    /// `API_KEY_SECRET`; every derived key comes from it.
    pub root_secret: RootSecret,
    /// `ADMIN_TOKEN`; without one nobody is an administrator over HTTP.
    pub admin_token: Option<AdminToken>,
    /// Base domain of sandbox traffic; answers carry it.
    pub domain: String,
    pub limits: Limits,
    /// Closed ranges that the operator opens by name (`network.allow_ranges`): a sandbox's
    /// `dnsServers` may be there.
    pub allow_ranges: Vec<IpNet>,
    /// How long a sandbox that the store never heard of may run on. Too short kills what a
    /// restored database forgot; too long feeds what nobody owns.
    pub orphan_grace: Duration,
    /// The same for one of which the node was never told that it has a row: that comes right after
    /// the node's answer, so this long without it means that a crash cut its create off.
    pub row_grace: Duration,
    /// What of the past is kept.
    pub retention: Retention,
    /// How often it is noted how many sandboxes each team has. Shorter takes more room; longer
    /// shows less.
    pub activity_every: Duration,
    /// What a template gets that is built without naming it. Its disk is also the most that a build
    /// may ask for.
    pub template_resources: Resources,
    pub uploads: UploadConfig,
    /// How long a create waits for its node; beyond it 504 and the sandbox is ended.
    pub create_timeout: Duration,
    pub builds: BuildsConfig,
    pub warm_pool: WarmPoolConfig,
    pub servers: Sharing,
    /// Where nodes' carriers store; of it only what nobody needs is removed here.
    pub bucket: Option<Artifacts>,
    /// How long a sandbox is paused before its files go to the bucket, where several servers share a
    /// store; `None`: never.
    pub paused_stored_after: Option<Duration>,
}

/// Who else uses its store.
pub enum Sharing {
    /// Nobody: whatever another process began there is given up at the start.
    Alone,
    /// Any number of servers, which tell each other that they are there.
    Several(Shared),
}

/// What is needed beside other servers.
pub struct Shared {
    /// Where they reach this one, if they can.
    pub address: Option<String>,
    pub version: String,
    /// Tells which server is at a sandbox, so that the others join, wait or refuse as one server
    /// would. Without it they find out by what the node and the store say.
    pub leases: Option<Arc<dyn Leases>>,
    /// Tells of changes that remembered answers must not outlive. Without it they do, by seconds.
    pub events: Option<Arc<dyn Events>>,
    pub times: ServerTimes,
}

/// How servers keep an eye on each other; the same for all of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTimes {
    /// How often each says that it is there.
    pub beat_every: Duration,
    /// One that was not heard of for so long is dead. Longer leaves what it had begun for longer.
    pub dead_after: Duration,
    /// How long a server does for all what it took on (a node, tidying up) before another may. A
    /// fifth less for itself.
    pub lease_lasts: Duration,
    /// How often it is taken, and prolonged.
    pub lease_every: Duration,
    /// A node that no server has reached for so long is given up; `None`: only on an administrator's
    /// word. Shorter frees the places of what ran there sooner, and is sooner wrong.
    pub lost_after: Option<Duration>,
}

impl Default for ServerTimes {
    fn default() -> Self {
        Self {
            beat_every: Duration::from_secs(2),
            dead_after: Duration::from_secs(10),
            lease_lasts: Duration::from_secs(10),
            lease_every: Duration::from_secs(3),
            lost_after: Some(Duration::from_secs(600)),
        }
    }
}

/// How many started sandboxes wait for being asked for; of templates with a start command. Each of
/// several servers has as many of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmPoolConfig {
    /// Of all templates together (`sandbox_pool_size`); 0: none.
    pub size: usize,
    /// Of one template, for one team (`sandbox_warm_pool_size`); 0: none.
    pub size_per_template: usize,
    /// How long one waits before it ends, and how long a use is remembered
    /// (`sandbox_max_idle_time`).
    pub idle: Duration,
}

impl Default for WarmPoolConfig {
    fn default() -> Self {
        Self {
            size: 20,
            size_per_template: 5,
            idle: Duration::from_secs(300),
        }
    }
}

/// Settings of template builds.
#[derive(Debug, Clone)]
pub struct BuildsConfig {
    /// Templates that stand for images, by the images' whole references.
    pub images_at_hand: BTreeMap<String, String>,
    /// What `envdVersion` says of builds.
    pub agent_version: String,
    /// Builds that run at once; others wait.
    pub at_once: usize,
    /// All files of an image, MiB.
    pub image_mib_max: u32,
    /// How long a step's result is kept after its last use.
    pub cache: Duration,
    /// Results of steps that are kept of each team.
    pub cache_steps_max: u32,
    /// What a team's layers and results of steps take together, bytes: results go for it, and a
    /// template that does not fit without them fails.
    pub team_bytes_max: u64,
    /// How long a ready build is kept that nothing refers to any more; `None`: for ever.
    pub unused: Option<Duration>,
    /// A template's archive on its way out, bytes; beyond it 413.
    pub export_bytes_max: u64,
}

impl Default for BuildsConfig {
    fn default() -> Self {
        Self {
            images_at_hand: BTreeMap::new(),
            agent_version: String::new(),
            at_once: 2,
            image_mib_max: 25_000,
            cache: Duration::from_secs(7 * 24 * 3600),
            cache_steps_max: 2000,
            team_bytes_max: 20 << 30,
            unused: Some(Duration::from_secs(30 * 24 * 3600)),
            export_bytes_max: 8 << 30,
        }
    }
}

impl ControlConfig {
    /// The defaults of `docs/configuration.md`.
    pub fn new(
        root_secret: RootSecret,
        domain: impl Into<String>,
        uploads: impl Into<PathBuf>,
    ) -> Self {
        Self {
            root_secret,
            admin_token: None,
            domain: domain.into(),
            limits: Limits::default(),
            allow_ranges: Vec::new(),
            orphan_grace: Duration::from_secs(600),
            row_grace: Duration::from_secs(5),
            retention: Retention::default(),
            activity_every: Duration::from_secs(15),
            template_resources: Resources {
                memory_mib: 1024,
                ..Resources::BASE
            },
            uploads: UploadConfig::new(uploads),
            create_timeout: Duration::from_secs(60),
            builds: BuildsConfig::default(),
            warm_pool: WarmPoolConfig::default(),
            servers: Sharing::Alone,
            bucket: None,
            paused_stored_after: Some(Duration::from_secs(60)),
        }
    }
}

/// Archives that clients upload for their builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadConfig {
    /// A folder of ours, made when it is missing; each team has one in it.
    pub dir: PathBuf,
    /// One archive, bytes; beyond it 413.
    pub upload_bytes_max: u64,
    /// All of a team's together, those under way included; beyond it 413.
    pub team_bytes_max: u64,
    /// What must stay free on the disk, bytes; below it 507.
    pub disk_reserve_bytes: u64,
    /// One that no build used for so long goes.
    pub kept_for: Duration,
    /// How long nothing may come of one that is under way; beyond it 408.
    pub silence_max: Duration,
}

impl UploadConfig {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            dir: dir.into(),
            upload_bytes_max: 4 * GIB,
            team_bytes_max: 20 * GIB,
            disk_reserve_bytes: 0,
            kept_for: Duration::from_secs(7 * 24 * 3600),
            silence_max: Duration::from_secs(60),
        }
    }
}

/// The shared secret of administrators. It has no `Debug` on purpose.
pub struct AdminToken(String);

impl AdminToken {
    pub fn new(token: String) -> Self {
        Self(token)
    }

    /// In constant time for equal lengths; an empty token is nobody's.
    pub fn matches(&self, given: &str) -> bool {
        use subtle::ConstantTimeEq;
        !self.0.is_empty() && bool::from(self.0.as_bytes().ct_eq(given.as_bytes()))
    }
}

/// Limits of a team that has none of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sandboxes that a team runs at once; beyond it create answers 429.
    pub sandboxes_max: u32,
    /// Seconds to live when a create or connect (v2) names none: `SANDBOX_TIMEOUT`.
    pub life_seconds_default: u32,
    /// Longest life of a run, hours; a longer one asked for is 400, an extension is cut.
    pub life_hours_max: u32,
    /// Virtual processors of one sandbox; a template that wants more is 400.
    pub vcpus_max: u32,
    /// Memory of one sandbox, MiB; a template that wants more is 400.
    pub memory_mib_max: u32,
    /// Days that a paused sandbox is kept; 0: for ever.
    pub paused_days: u32,
    /// Days that a snapshot is kept; 0: for ever.
    pub snapshot_days: u32,
    /// Builds of a team that may be waiting or under way; beyond it 429.
    pub builds_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sandboxes_max: 1000,
            life_seconds_default: 300,
            life_hours_max: LIFE_HOURS_MAX_DEFAULT,
            vcpus_max: 8,
            memory_mib_max: 8192,
            paused_days: 0,
            snapshot_days: 0,
            builds_max: 20,
        }
    }
}

impl Limits {
    /// These, with the team's own in their place.
    pub(crate) fn of(self, team: &Team) -> Self {
        let own = &team.limits;
        Self {
            sandboxes_max: own.sandboxes_max.unwrap_or(self.sandboxes_max),
            life_seconds_default: self.life_seconds_default,
            life_hours_max: own.life_hours_max.unwrap_or(self.life_hours_max),
            vcpus_max: own.vcpus_max.unwrap_or(self.vcpus_max),
            memory_mib_max: own.memory_mib_max.unwrap_or(self.memory_mib_max),
            paused_days: own.paused_days.unwrap_or(self.paused_days),
            snapshot_days: own.snapshot_days.unwrap_or(self.snapshot_days),
            builds_max: self.builds_max,
        }
    }

    pub(crate) fn life_max(&self) -> Duration {
        Duration::from_secs(u64::from(self.life_hours_max) * 3600)
    }
}
