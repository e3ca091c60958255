//! Templates and builds.

use casemate_types::{Resources, SandboxId, SnapshotId, TeamId, TemplateId};

use super::{Misread, Named, from_json, small, timestamp, to_json, unknown_word};
use crate::{Build, BuildId, Snapshot, StoreError, Template, TemplateSource};

#[derive(sqlx::FromRow)]
pub(crate) struct TemplateRow {
    id: String,
    team_id: Option<String>,
    public: bool,
    alias: Option<String>,
    source: String,
    created_at: i64,
}

/// A template and the name under which it was found.
#[derive(sqlx::FromRow)]
pub(crate) struct MatchRow {
    #[sqlx(flatten)]
    pub(crate) template: TemplateRow,
    pub(crate) identifier: String,
}

#[derive(sqlx::FromRow)]
pub(crate) struct BuildRow {
    id: String,
    template_id: String,
    layers: String,
    vcpus: i64,
    memory_mib: i64,
    disk_mib: i64,
    processes_max: i64,
    default_user: String,
    default_workdir: Option<String>,
    envd_version: String,
    files: Option<String>,
    created_at: i64,
}

#[derive(sqlx::FromRow)]
pub(crate) struct SnapshotRow {
    template_id: String,
    alias: Option<String>,
    tag: String,
    build_id: String,
    files: String,
    node: String,
    sandbox_id: String,
    created_at: i64,
}

pub(crate) fn source_word(source: TemplateSource) -> &'static str {
    match source {
        TemplateSource::Build => "template",
        TemplateSource::Snapshot => "snapshot",
    }
}

fn source(word: &str) -> Result<TemplateSource, Misread> {
    match word {
        "template" => Ok(TemplateSource::Build),
        "snapshot" => Ok(TemplateSource::Snapshot),
        other => Err(unknown_word("source of a template", other)),
    }
}

pub(crate) fn layers_text(layers: &[String]) -> String {
    to_json(layers)
}

impl TryFrom<TemplateRow> for Template {
    type Error = StoreError;

    fn try_from(row: TemplateRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_template(row).named("template", &id)
    }
}

impl TryFrom<BuildRow> for Build {
    type Error = StoreError;

    fn try_from(row: BuildRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_build(row).named("build", &id)
    }
}

impl TryFrom<SnapshotRow> for Snapshot {
    type Error = StoreError;

    fn try_from(row: SnapshotRow) -> Result<Self, StoreError> {
        let id = row.build_id.clone();
        read_snapshot(row).named("snapshot", &id)
    }
}

fn read_snapshot(row: SnapshotRow) -> Result<Snapshot, Misread> {
    Ok(Snapshot {
        template: TemplateId::parse(&row.template_id)?,
        build: BuildId::parse(&row.build_id)?,
        files: SnapshotId::parse(&row.files)?,
        sandbox: SandboxId::parse(&row.sandbox_id)?,
        created_at: timestamp(row.created_at)?,
        alias: row.alias,
        tag: row.tag,
        node: row.node,
    })
}

fn read_template(row: TemplateRow) -> Result<Template, Misread> {
    Ok(Template {
        id: TemplateId::parse(&row.id)?,
        owner: row.team_id.as_deref().map(TeamId::parse).transpose()?,
        public: row.public,
        alias: row.alias,
        source: source(&row.source)?,
        created_at: timestamp(row.created_at)?,
    })
}

fn read_build(row: BuildRow) -> Result<Build, Misread> {
    Ok(Build {
        id: BuildId::parse(&row.id)?,
        template: TemplateId::parse(&row.template_id)?,
        layers: from_json(&row.layers)?,
        resources: Resources {
            vcpus: small(row.vcpus)?,
            memory_mib: small(row.memory_mib)?,
            disk_mib: small(row.disk_mib)?,
            processes_max: small(row.processes_max)?,
        },
        default_user: row.default_user,
        default_workdir: row.default_workdir,
        envd_version: row.envd_version,
        files: row.files.as_deref().map(SnapshotId::parse).transpose()?,
        startup: None,
        distribution: casemate_types::Distribution::Other,
        created_at: timestamp(row.created_at)?,
    })
}
