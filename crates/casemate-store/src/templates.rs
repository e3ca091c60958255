//! Templates, their builds, and the aliases and tags by which they are found.
//!
//! ```text
//! alias ([namespace,] name) ──▶ template ──tag──▶ build
//! ```

use std::collections::BTreeMap;

use async_trait::async_trait;
use casemate_types::template::TemplateRef;
use casemate_types::{Distribution, Resources, SnapshotId, Startup, TeamId, TemplateId, Timestamp};

use crate::{BuildId, StoreError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub id: TemplateId,
    /// `None`: the platform's own, which every team may use and none may change.
    pub owner: Option<TeamId>,
    /// Other teams may use it.
    pub public: bool,
    /// Its first alias, without namespace.
    pub alias: Option<String>,
    pub source: TemplateSource,
    pub created_at: Timestamp,
}

/// Where a template comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateSource {
    /// It was built, or a node brought it.
    Build,
    /// It was made of a sandbox ([`crate::Snapshots`]).
    Snapshot,
}

/// What a sandbox is made from. It does not change once a sandbox may use it, except where
/// [`Templates::template_report`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    pub id: BuildId,
    pub template: TemplateId,
    /// Names at the nodes, topmost first.
    pub layers: Vec<String>,
    pub resources: Resources,
    pub default_user: String,
    pub default_workdir: Option<String>,
    pub envd_version: String,
    /// What sandboxes made from it begin with beyond the layers: kept files at a node.
    pub files: Option<SnapshotId>,
    /// Variables that its steps set: for templates that are built on it, and for no sandbox.
    pub envs: BTreeMap<String, String>,
    /// What runs in a sandbox made from it before it is given away.
    pub startup: Option<Startup>,
    pub distribution: Distribution,
    pub created_at: Timestamp,
}

impl Build {
    /// What a sandbox made from it waits for: a start command, and what tells that it is ready. A
    /// ready command alone was the build's to wait for.
    pub fn started_with(&self) -> Option<&Startup> {
        self.startup
            .as_ref()
            .filter(|startup| startup.start.is_some())
    }
}

/// What became of a reference (`api.md` 1.5, steps 2 to 4).
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each request, and it is taken apart at once"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// No alias and no id of this name.
    Unknown,
    /// The template is there, the tag has no build.
    NoBuild {
        template: Template,
        /// What matched: `namespace/alias`, `alias` or the id.
        identifier: String,
    },
    Found {
        template: Template,
        identifier: String,
        build: Build,
    },
}

/// A template that a node brought with it, such as `base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    pub build: Build,
    /// A promoted alias: without namespace, found by every team.
    pub alias: String,
}

#[async_trait]
pub trait Templates {
    /// Finds what `reference` means to a team whose namespace is `home`: in the namespace that it
    /// names and there only; else the alias in `home`, else the promoted alias, else the id.
    /// A tag leads to the build that is ready and got it last; a tag that is a build's id leads to
    /// that build. Whether the team may use it is not judged here.
    async fn template_resolve(
        &self,
        home: &str,
        reference: &TemplateRef,
    ) -> Result<Resolution, StoreError>;

    /// One that is ready.
    async fn build_by_id(&self, id: &BuildId) -> Result<Option<Build>, StoreError>;

    async fn template_by_id(&self, id: &TemplateId) -> Result<Option<Template>, StoreError>;

    /// Makes the platform's template of a node known; whether anything changed. The template is
    /// public and has no owner; its default tag and the promoted alias point to the youngest
    /// build that any node reported. A build that is known takes the report's values (a node
    /// with a newer agent reports the same build). Idempotent, and cheap when nothing changed.
    /// [`StoreError::Exists`] when template, build or alias belong to a team.
    async fn template_report(
        &self,
        report: &NodeReport,
        now: Timestamp,
    ) -> Result<bool, StoreError>;
}
