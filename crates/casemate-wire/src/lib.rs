//! REST bodies exactly as on the wire, for the server and for our own client.
//!
//! Owns field names, presence and JSON types of the control-plane API; what a document cannot
//! say with a type (a lower bound, "may be absent but not null") is said by the functions of
//! `de`. It must not know decisions: defaults, limits of teams and conversions live beside the
//! handlers. Unknown fields are accepted and ignored, as E2B's schemas do.

mod build;
mod cluster;
mod de;
mod error;
mod events;
mod keys;
mod logs;
mod metrics;
mod network;
mod nodes;
mod sandbox;
mod snapshot;
mod tags;
mod teams;
mod template;

pub use build::{
    BuildLogEntry, BuildStatusReason, CancelledBuilds, CollectBuilds, CollectedBuilds,
    ImageArchive, ImageRegistry, NewTemplateBuild, RequestedTemplateBuild, StartTemplateBuild,
    TemplateBuildInfo, TemplateBuildLogs, TemplateFilesUpload, TemplateStep,
};
pub use cluster::{
    ClusterNode, CreatedJoinToken, DrainNode, DrainedNode, NewJoinToken, NodeLeft, NotPaused,
    RemovedNode, SetNodeStanding,
};
pub use error::ErrorBody;
pub use events::SandboxEvent;
pub use keys::{CreatedTeamApiKey, KeyMask, KeyName, TeamApiKey, TeamUser};
pub use logs::{SandboxLog, SandboxLogEntry, SandboxLogs, SandboxLogsV2};
pub use metrics::{MaxTeamMetric, SandboxMetric, SandboxesMetrics, TeamMetric};
pub use network::{EgressProxy, NetworkConfig, NetworkShown, NetworkUpdate};
pub use nodes::{
    DiskMetrics, MachineInfo, Node, NodeDetail, NodeMetrics, NodeStatus, SetNodeStatus,
};
pub use sandbox::{
    AutoResume, ConnectSandbox, ConnectSandboxV2, Iam, Lifecycle, ListedSandbox, NewSandbox,
    NewSandboxV2, OnTimeout, PauseMode, PauseSandbox, RefreshSandbox, ResumeSandbox, Sandbox,
    SandboxDetail, SandboxTimeout, State, VolumeMount,
};
pub use snapshot::{ForkResult, ForkSandbox, NewSnapshot, SnapshotInfo};
pub use tags::{
    AssignTags, AssignedTags, DeleteTags, TemplateTag, TemplateTagAssignment,
    TemplateTagAssignments, TemplateTagCount, TemplateTagExists, TemplateTagGroup,
    TemplateTagGroups,
};
pub use teams::{KilledSandboxes, Team};
pub use template::{
    Template, TemplateAlias, TemplateBuild, TemplateUpdate, TemplateWithBuilds, UpdatedTemplate,
};

/// `clientID` of every answer: deprecated, constant, required by the SDKs' parsers.
pub const CLIENT_ID: &str = "6532622b";
