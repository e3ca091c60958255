//! Templates and snapshots.

use casemate_types::{BuildStatus, SandboxId, SnapshotId, TeamId, TemplateId};

use super::build::status;
use super::{Misread, Named, small, timestamp, unknown_word};
use crate::{BuildId, Snapshot, StoreError, Template, TemplateSource, TemplateSummary};

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

/// A template on a page; its names and its build are read beside it.
#[derive(sqlx::FromRow)]
pub(crate) struct SummaryRow {
    #[sqlx(flatten)]
    pub(crate) template: TemplateRow,
    updated_at: i64,
    build_count: i64,
    spawn_count: i64,
    last_spawned_at: Option<i64>,
    /// The id of a build.
    pub(crate) ready: Option<String>,
    status: Option<String>,
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

impl TryFrom<TemplateRow> for Template {
    type Error = StoreError;

    fn try_from(row: TemplateRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_template(row).named("template", &id)
    }
}

/// Without names and build.
impl TryFrom<SummaryRow> for TemplateSummary {
    type Error = StoreError;

    fn try_from(row: SummaryRow) -> Result<Self, StoreError> {
        let id = row.template.id.clone();
        read_summary(row).named("template", &id)
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

fn read_summary(row: SummaryRow) -> Result<TemplateSummary, Misread> {
    Ok(TemplateSummary {
        template: read_template(row.template)?,
        names: Vec::new(),
        updated_at: timestamp(row.updated_at)?,
        spawn_count: u64::try_from(row.spawn_count)?,
        last_spawned_at: row.last_spawned_at.map(timestamp).transpose()?,
        build_count: small(row.build_count)?,
        ready: None,
        status: row
            .status
            .as_deref()
            .map_or(Ok(BuildStatus::Waiting), status)?,
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
