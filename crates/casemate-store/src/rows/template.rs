//! Templates and builds.

use casemate_types::{Resources, TeamId, TemplateId};

use super::{Misread, Named, from_json, small, timestamp, to_json};
use crate::{Build, BuildId, StoreError, Template};

#[derive(sqlx::FromRow)]
pub(crate) struct TemplateRow {
    id: String,
    team_id: Option<String>,
    public: bool,
    alias: Option<String>,
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
    created_at: i64,
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

fn read_template(row: TemplateRow) -> Result<Template, Misread> {
    Ok(Template {
        id: TemplateId::parse(&row.id)?,
        owner: row.team_id.as_deref().map(TeamId::parse).transpose()?,
        public: row.public,
        alias: row.alias,
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
        created_at: timestamp(row.created_at)?,
    })
}
