//! Bodies of the calls, and the frames that carry them. Versioned by [`VERSION`].

use std::collections::BTreeMap;

use casemate_types::steady::moment;
use casemate_types::{
    CompiledPolicy, Distribution, EndReason, Entrance, Kept, LayerId, OnTimeout, PauseReason,
    Portable, Resources, Sample, SandboxId, SnapshotId, Startup, TeamId, TemplateId, Timestamp,
};
use serde::{Deserialize, Serialize};

/// Of everything in this module; the first message of each side names it.
pub const VERSION: u32 = 8;
/// The oldest that we still speak: processes of several machines are replaced one after the other,
/// so a version must understand the one before it.
const OLDEST: u32 = 7;

/// Versions that an end speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Speaks {
    pub(crate) version: u32,
    /// The lowest.
    #[serde(default)]
    pub(crate) oldest: Option<u32>,
    /// As an API server: it is asked where a sandbox's row says that it is.
    #[serde(default)]
    pub(crate) tells_homes: bool,
}

impl Speaks {
    pub(crate) const OURS: Self = Self {
        version: VERSION,
        oldest: Some(OLDEST),
        tells_homes: true,
    };

    /// Whether there is a version that both speak.
    pub(crate) fn understands_us(self) -> bool {
        self.version >= OLDEST && self.oldest.unwrap_or(self.version) <= VERSION
    }
}

impl std::fmt::Display for Speaks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let oldest = self.oldest.unwrap_or(self.version);
        write!(f, "versions {oldest} to {} of the protocol", self.version)
    }
}

/// A sandbox to be made.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreateRequest {
    pub sandbox: SandboxId,
    pub team: TeamId,
    pub template: TemplateId,
    /// Names of the template's layers at the node, topmost first. Without any it begins with nothing
    /// but the folders that its mounts need, so that the files of an image can be put there.
    pub layers: Vec<String>,
    /// What the lowest layer holds: the operator's settings for it are laid right over that, and all
    /// other layers over them. `None` where there are to be none.
    #[serde(default)]
    pub distribution: Option<Distribution>,
    pub resources: Resources,
    pub network: CompiledPolicy,
    pub envs: BTreeMap<String, String>,
    /// What the agent asks of its clients; `None` leaves it open (v1 without `secure`).
    pub access_token: Option<String>,
    pub default_user: String,
    pub default_workdir: Option<String>,
    /// Counted from the moment at which the sandbox is ready.
    pub life_ms: u64,
    pub on_timeout: OnTimeout,
    /// What its files begin with; `None` for what the template has alone.
    pub files: Option<SnapshotId>,
    /// What the agent runs in it once it serves; nobody waits for that here.
    #[serde(default)]
    pub startup: Option<Startup>,
    /// It is made before anybody asked for it, waits for a [`ClaimRequest`], and gives way to every
    /// sandbox that needs its place. Nobody but its maker has been told of it.
    #[serde(default)]
    pub warm: bool,
    /// The API server that asks. Until it has a row it is that server's to look after; empty for
    /// those of versions that did not say it.
    #[serde(default)]
    pub creator: String,
    /// How traffic comes in. `None`: nobody says; what the node knows already stays.
    #[serde(default)]
    pub entrance: Option<Entrance>,
}

/// What becomes of a warm sandbox when it is given away; all else is as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRequest {
    /// Counted from now on.
    pub life_ms: u64,
    pub on_timeout: OnTimeout,
    /// As in [`CreateRequest`].
    #[serde(default)]
    pub entrance: Option<Entrance>,
}

/// A paused sandbox that is to go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResumeRequest {
    /// What it is made of where its processes are not kept; its life and what comes after that count
    /// in any case. [`CreateRequest::files`] is the node's own affair.
    pub sandbox: CreateRequest,
    /// [`Kept::Files`]: its processes are given up, and it starts anew.
    pub from: Kept,
    /// It goes on with its processes or not at all.
    pub with_memory_only: bool,
}

impl std::fmt::Debug for CreateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateRequest")
            .field("sandbox", &self.sandbox)
            .field("team", &self.team)
            .field("template", &self.template)
            .field("resources", &self.resources)
            .finish_non_exhaustive()
    }
}

/// It serves; both times are the node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateReply {
    #[serde(deserialize_with = "moment")]
    pub started_at: Timestamp,
    #[serde(deserialize_with = "moment")]
    pub ends_at: Timestamp,
}

/// It is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseReply {
    #[serde(deserialize_with = "moment")]
    pub at: Timestamp,
    pub kept: Kept,
}

/// It serves again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeReply {
    #[serde(deserialize_with = "moment")]
    pub started_at: Timestamp,
    #[serde(deserialize_with = "moment")]
    pub ends_at: Timestamp,
    /// What it went on with.
    pub from: Kept,
}

/// Its files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReply {
    /// For how long its processes stood still.
    pub frozen_us: u64,
    /// What it holds, whoever else shares that.
    pub bytes: u64,
    /// What an earlier snapshot of the sandbox holds as well, or the one that it began with, takes no
    /// room of its own.
    pub is_shared: bool,
}

/// A snapshot that a node keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSnapshot {
    pub snapshot: SnapshotId,
    /// What its removal would give back; `None` where that is not known.
    pub bytes: Option<u64>,
}

/// Kept files became a read-only layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealReply {
    /// What the layer takes on the node's disk.
    pub bytes: u64,
}

/// A sandbox that rests on the node, as its journal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedSandbox {
    pub sandbox: SandboxId,
    pub team: TeamId,
    pub template: TemplateId,
    /// Of its last run.
    #[serde(deserialize_with = "moment")]
    pub started_at: Timestamp,
    /// When it was paused.
    #[serde(deserialize_with = "moment")]
    pub at: Timestamp,
    pub kept: Kept,
    /// Why it came to this.
    pub reason: PauseReason,
    /// As of one that runs: its deadline may have paused one of a create that a crash cut off.
    pub recorded: bool,
    /// As in [`CreateRequest`].
    #[serde(default)]
    pub creator: String,
}

/// A sandbox that the node has, as its journal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningSandbox {
    pub sandbox: SandboxId,
    pub team: TeamId,
    pub template: TemplateId,
    #[serde(deserialize_with = "moment")]
    pub started_at: Timestamp,
    #[serde(deserialize_with = "moment")]
    pub ends_at: Timestamp,
    pub on_timeout: OnTimeout,
    /// Control said that it has a row. One without is of a create that is under way, or that a
    /// crash cut off.
    pub recorded: bool,
    /// It waits for being claimed.
    #[serde(default)]
    pub warm: bool,
    /// As in [`CreateRequest`].
    #[serde(default)]
    pub creator: String,
}

/// A sandbox that the node has, as an edge needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// It is paused.
    pub asleep: bool,
    /// Of its last run: of two nodes that have it, the younger run counts.
    #[serde(deserialize_with = "moment")]
    pub started_at: Timestamp,
    /// `None`: the node was never told.
    pub entrance: Option<Entrance>,
}

/// What travels on the watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeEvent {
    /// It runs: each one at the start of a watch, and each new one.
    Running(RunningSandbox),
    /// It rests: each one at the start of a watch, each one that is paused, and each one of which
    /// less is kept than was.
    Paused(PausedSandbox),
    /// All that was there when the watch began has been named.
    Synced,
    Ended {
        sandbox: SandboxId,
        reason: EndReason,
        #[serde(deserialize_with = "moment")]
        at: Timestamp,
    },
    /// What running sandboxes use: of each the first soon after its start, then every five
    /// seconds; many in one message. Lost while nobody watches.
    Samples(Vec<Sample>),
    /// What a sandbox wrote to its log, whole lines that nobody has looked into: it may write
    /// anything. Read at `at`, all of it written after `since`. While nobody watches it waits in
    /// the sandbox.
    Log {
        sandbox: SandboxId,
        team: TeamId,
        #[serde(deserialize_with = "moment")]
        since: Timestamp,
        #[serde(deserialize_with = "moment")]
        at: Timestamp,
        lines: String,
    },
    /// The kernel ended so many of its processes because its memory was full.
    MemoryFull {
        sandbox: SandboxId,
        team: TeamId,
        #[serde(deserialize_with = "moment")]
        at: Timestamp,
        processes: u64,
    },
    /// Every five seconds, and after each change of what `NodeInfo` says.
    Heartbeat(Box<NodeInfo>),
}

/// A template that is at hand on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTemplate {
    pub template: TemplateId,
    /// UUID of the build.
    pub build: String,
    /// Name under which everybody finds it (a promoted alias).
    pub alias: String,
    pub layers: Vec<String>,
    /// What the lowest of them holds.
    #[serde(default = "of_the_base")]
    pub distribution: Distribution,
    pub resources: Resources,
    pub default_user: String,
    pub default_workdir: Option<String>,
    /// What `envdVersion` says.
    pub agent_version: String,
    #[serde(deserialize_with = "moment")]
    pub created_at: Timestamp,
}

/// What all templates of nodes held that did not say it.
fn of_the_base() -> Distribution {
    Distribution::Debian("bookworm".into())
}

/// What a node is and holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub node: String,
    pub version: String,
    /// Sandboxes can be created now.
    pub ready: bool,
    /// Running, or being made; those that wait for a claim apart.
    pub sandboxes: u32,
    #[serde(default)]
    pub sandboxes_warm: u32,
    #[serde(default)]
    pub sandboxes_paused: u32,
    pub sandboxes_max: u32,
    /// Creates that wait for admission.
    pub queue_length: u32,
    pub slots_ready: u32,
    pub layers_ready: u32,
    pub cpu_count: u32,
    pub memory_total_bytes: u64,
    pub memory_available_bytes: u64,
    /// On the disk of the data directory; below the reserve creates are refused.
    #[serde(default)]
    pub disk_free_bytes: u64,
    #[serde(default)]
    pub disk_reserve_bytes: u64,
    /// What sandboxes can write together before their disk is full.
    #[serde(default)]
    pub layers_left_bytes: u64,
    /// How long ago their disk was last seen full.
    #[serde(default)]
    pub layers_full_ms_ago: Option<u64>,
    /// Sum of the memory limits of what runs.
    pub memory_promised_bytes: u64,
    /// What that may come to; 0 where it is not known.
    #[serde(default)]
    pub memory_promised_max_bytes: u64,
    /// Held by paused sandboxes.
    #[serde(default)]
    pub memory_paused_bytes: u64,
    /// Sum of the virtual processors of what runs.
    #[serde(default)]
    pub vcpus_promised: u32,
    /// How busy the machine's processors were lately, of all of them together.
    #[serde(default)]
    pub cpu_percent: u32,
    #[serde(default)]
    pub processor: NodeProcessor,
    /// Under the data directory; `None` where it could not be found.
    #[serde(default)]
    pub disk: Option<NodeDisk>,
    pub disk_limit_enforced: bool,
    pub templates: Vec<NodeTemplate>,
}

/// A machine's processors, as it names them itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProcessor {
    pub family: String,
    pub model: String,
    pub name: String,
    pub architecture: String,
}

/// A file system of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDisk {
    pub mount_point: String,
    pub device: String,
    pub file_system: String,
    pub used_bytes: u64,
    pub total_bytes: u64,
}

/// From control, or an edge, to the node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    Hello(Speaks),
    Create(Box<CreateRequest>),
    Claim {
        sandbox: SandboxId,
        claim: ClaimRequest,
    },
    Kill {
        sandbox: SandboxId,
        reason: EndReason,
    },
    Pause {
        sandbox: SandboxId,
        kept: Kept,
    },
    Resume(Box<ResumeRequest>),
    Snapshot {
        sandbox: SandboxId,
        snapshot: SnapshotId,
        /// It is to be of a paused one, as [`Reply::Kept`]. Who knows nothing of it refuses those that
        /// are paused.
        #[serde(default)]
        paused: bool,
    },
    RemoveSnapshot {
        snapshot: SnapshotId,
    },
    Snapshots {
        after: Option<SnapshotId>,
    },
    Seal {
        snapshot: SnapshotId,
        layer: LayerId,
    },
    RemoveLayer {
        layer: LayerId,
    },
    Layers {
        after: Option<LayerId>,
    },
    /// Its socket travels beside it.
    Pack {
        what: Portable,
    },
    Unpack {
        what: Portable,
    },
    MemoryKills {
        sandbox: SandboxId,
    },
    Missing {
        layers: Vec<String>,
        files: Option<SnapshotId>,
    },
    SetDeadline {
        sandbox: SandboxId,
        #[serde(deserialize_with = "moment")]
        ends_at: Timestamp,
    },
    SetNetwork {
        sandbox: SandboxId,
        policy: CompiledPolicy,
    },
    Recorded {
        sandboxes: Vec<SandboxId>,
    },
    Dial {
        sandbox: SandboxId,
        port: u16,
    },
    Locate {
        sandbox: SandboxId,
    },
    Info,
    Watch,
    Observe,
    /// A connection of its own, to be served for whoever stands behind the caller.
    Connect {
        peer: Peer,
    },
}

/// Who asks, and so what is carried out for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// Everything.
    Control,
    /// What leads into sandboxes: where one is, and connections.
    Edge,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Hello(Speaks),
    Created(CreateReply),
    Paused(PauseReply),
    Resumed(ResumeReply),
    Snapshot(SnapshotReply),
    /// Of a paused one: where its files are kept.
    Kept(SnapshotId),
    Snapshots(Vec<KeptSnapshot>),
    Sealed(SealReply),
    Layers(Vec<LayerId>),
    Missing(Vec<String>),
    /// Bytes that it takes.
    Unpacked(u64),
    MemoryKills(u64),
    Done,
    Dialled,
    Located(Option<Box<Located>>),
    Info(Box<NodeInfo>),
    /// The connection's other end travels beside it.
    Connected,
}
