//! What a runtime is told about a new sandbox.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use casemate_types::{CompiledPolicy, Resources, SandboxId, SnapshotId, Startup, TemplateId};
use serde::{Deserialize, Serialize};

/// Everything that a runtime needs to make one sandbox.
#[derive(Debug, Clone)]
pub struct CreateSpec {
    pub sandbox: SandboxId,
    /// Read-only layers, topmost first, 1 to 16; directories of this machine.
    pub lowers: Vec<PathBuf>,
    /// What it has written already: a copy of these kept files; `None` begins with none. They were
    /// kept from a sandbox over the same layers of its template.
    pub files: Option<SnapshotId>,
    pub resources: Resources,
    pub network: CompiledPolicy,
    pub hostname: String,
    pub agent: AgentConfig,
}

/// What the agent is told before it answers anybody (decision 8). This is its wire form too:
/// one JSON object on a descriptor of PID 1, read to the end.
#[derive(Clone, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Of this format; the agent refuses others.
    pub version: u32,
    pub sandbox_id: SandboxId,
    pub template_id: TemplateId,
    /// What clients must send as `X-Access-Token`; `None` leaves the agent open, which only v1
    /// templates of old clients may ask for.
    pub access_token: Option<String>,
    /// The operator's, for every process in the sandbox; since version 3.
    pub site_envs: BTreeMap<String, String>,
    /// For every process that clients start through the agent; they win over the operator's.
    pub envs: BTreeMap<String, String>,
    pub default_user: String,
    pub default_workdir: Option<String>,
    pub hostname: String,
    /// What the template starts before the sandbox is given away; since version 2.
    pub startup: Option<Startup>,
}

impl AgentConfig {
    pub const VERSION: u32 = 3;
}

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfig")
            .field("sandbox_id", &self.sandbox_id)
            .field("template_id", &self.template_id)
            .field("secured", &self.access_token.is_some())
            .field("starts", &self.startup.is_some())
            .field("envs", &format_args!("{} names", self.envs.len()))
            .finish_non_exhaustive()
    }
}
