use std::collections::BTreeMap;

use casemate_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::de::{natural, natural_opt, non_null, object, objects, refresh_seconds};
use crate::network::{NetworkConfig, NetworkShown};

/// Whether traffic wakes a paused sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SandboxAutoResumeConfig)]
pub struct AutoResume {
    pub enabled: bool,
}

/// Workload identity tokens of a sandbox, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = SandboxIam)]
pub struct Iam {
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false, value_type = Option<BTreeMap<String, Object>>)]
    pub tokens: Option<BTreeMap<String, serde_json::Value>>,
}

/// A persistent volume in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SandboxVolumeMount)]
pub struct VolumeMount {
    pub name: String,
    pub path: String,
}

/// Body of `POST /v2/sandboxes`: every sandbox is secured.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewSandboxV2 {
    /// `[namespace/]alias[:tag]` or an id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Seconds to live, counted from the moment at which it is ready; 300 by default.
    #[serde(default, deserialize_with = "natural_opt")]
    #[schema(nullable = false, minimum = 0)]
    pub timeout: Option<u32>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub auto_pause: Option<bool>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub auto_pause_memory: Option<bool>,
    #[serde(default, deserialize_with = "object")]
    #[schema(nullable = false)]
    pub auto_resume: Option<AutoResume>,
    #[serde(
        default,
        deserialize_with = "non_null",
        rename = "allow_internet_access"
    )]
    #[schema(nullable = false)]
    pub allow_internet_access: Option<bool>,
    #[serde(default, deserialize_with = "object")]
    #[schema(nullable = false)]
    pub network: Option<NetworkConfig>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub metadata: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub env_vars: Option<BTreeMap<String, String>>,
    /// The SDK starts the gateway; the control plane has nothing to do.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub mcp: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, deserialize_with = "object")]
    #[schema(nullable = false)]
    pub iam: Option<Iam>,
    #[serde(default, deserialize_with = "objects")]
    #[schema(nullable = false)]
    pub volume_mounts: Option<Vec<VolumeMount>>,
}

/// Body of `POST /sandboxes`.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewSandbox {
    /// `[namespace/]alias[:tag]` or an id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Seconds to live, counted from the moment at which it is ready; 15 by default.
    #[serde(default, deserialize_with = "natural_opt")]
    #[schema(nullable = false, minimum = 0)]
    pub timeout: Option<u32>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub auto_pause: Option<bool>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub auto_pause_memory: Option<bool>,
    #[serde(default, deserialize_with = "object")]
    #[schema(nullable = false)]
    pub auto_resume: Option<AutoResume>,
    /// Accepted and without effect: every sandbox is secured.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub secure: Option<bool>,
    #[serde(
        default,
        deserialize_with = "non_null",
        rename = "allow_internet_access"
    )]
    #[schema(nullable = false)]
    pub allow_internet_access: Option<bool>,
    #[serde(default, deserialize_with = "object")]
    #[schema(nullable = false)]
    pub network: Option<NetworkConfig>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub metadata: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(nullable = false)]
    pub env_vars: Option<BTreeMap<String, String>>,
    /// The SDK starts the gateway; the control plane has nothing to do.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub mcp: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, deserialize_with = "object")]
    #[schema(nullable = false)]
    pub iam: Option<Iam>,
    #[serde(default, deserialize_with = "objects")]
    #[schema(nullable = false)]
    pub volume_mounts: Option<Vec<VolumeMount>>,
}

/// Answer of create and connect.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    #[serde(rename = "templateID")]
    pub template_id: String,
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    #[serde(rename = "clientID")]
    pub client_id: String,
    pub envd_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    #[serde(default)]
    pub traffic_access_token: Option<String>,
    #[serde(default)]
    pub domain: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SandboxState)]
pub enum State {
    Running,
    Paused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SandboxOnTimeout)]
pub enum OnTimeout {
    Kill,
    Pause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SandboxLifecycle)]
pub struct Lifecycle {
    pub auto_resume: bool,
    pub on_timeout: OnTimeout,
}

/// Answer of `GET /sandboxes/{sandboxID}`.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxDetail {
    #[serde(rename = "templateID")]
    pub template_id: String,
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    #[serde(rename = "clientID")]
    pub client_id: String,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub end_at: Timestamp,
    pub envd_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    /// `null`: never said.
    #[serde(default)]
    pub allow_internet_access: Option<bool>,
    #[serde(default)]
    pub domain: Option<String>,
    pub cpu_count: u32,
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkShown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Only of a paused one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_mode: Option<PauseMode>,
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
}

/// What a pause has kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SandboxPauseMode)]
pub enum PauseMode {
    Full,
    Filesystem,
}

/// One row of the lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedSandbox {
    #[serde(rename = "templateID")]
    pub template_id: String,
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    #[serde(rename = "clientID")]
    pub client_id: String,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub end_at: Timestamp,
    pub cpu_count: u32,
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    pub state: State,
    pub envd_version: String,
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
}

/// Body of `POST /sandboxes/{sandboxID}/timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxTimeout {
    /// Seconds from now; 0 ends it at once.
    #[serde(deserialize_with = "natural")]
    #[schema(minimum = 0)]
    pub timeout: u32,
}

/// Body of `POST /sandboxes/{sandboxID}/refreshes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
pub struct RefreshSandbox {
    #[serde(default, deserialize_with = "refresh_seconds")]
    #[schema(nullable = false, minimum = 0, maximum = 3600)]
    pub duration: Option<u32>,
}

/// Body of `POST /sandboxes/{sandboxID}/connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectSandbox {
    #[serde(deserialize_with = "natural")]
    #[schema(minimum = 0)]
    pub timeout: u32,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub memory: Option<bool>,
}

/// Body of `POST /v2/sandboxes/{sandboxID}/connect`, which may be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConnectSandboxV2)]
pub struct ConnectSandboxV2 {
    #[serde(
        default,
        deserialize_with = "natural_opt",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false, minimum = 0)]
    pub timeout: Option<u32>,
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub memory: Option<bool>,
}

/// Body of `POST /sandboxes/{sandboxID}/pause`, which may be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SandboxPauseRequest)]
pub struct PauseSandbox {
    /// `false`: only files are kept.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub memory: Option<bool>,
    /// `true`: 503 when its agent does not answer.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub require_healthy_guest: Option<bool>,
}

/// Body of `POST /sandboxes/{sandboxID}/resume`, which may be left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ResumedSandbox)]
pub struct ResumeSandbox {
    /// Seconds to live; 15 by default.
    #[serde(
        default,
        deserialize_with = "natural_opt",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false, minimum = 0)]
    pub timeout: Option<u32>,
    /// What happens at the deadline from now on; what happened at the last by default.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub auto_pause: Option<bool>,
    /// `false`: it starts anew with its files.
    #[serde(
        default,
        deserialize_with = "non_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub memory: Option<bool>,
}
