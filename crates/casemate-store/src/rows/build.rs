//! Builds, and what they left for the next ones.

use std::collections::BTreeMap;

use casemate_types::{
    BuildContext, BuildFailure, BuildStatus, Distribution, Resources, SnapshotId, Startup,
    TemplateId,
};

use super::{Misread, Named, from_json, small, timestamp, to_json, unknown_word};
use crate::{Build, BuildId, BuildRecord, CachedLayer, StoreError};

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
    envs: Option<String>,
    startup: Option<String>,
    distribution: String,
    created_at: i64,
}

#[derive(sqlx::FromRow)]
pub(crate) struct RecordRow {
    id: String,
    template_id: String,
    status: String,
    failure: Option<String>,
    vcpus: i64,
    memory_mib: i64,
    disk_mib: i64,
    processes_max: i64,
    disk_size_mib: Option<i64>,
    envd_version: String,
    created_at: i64,
    updated_at: i64,
    finished_at: Option<i64>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct CachedLayerRow {
    key: String,
    layers: String,
    files: Option<String>,
    context: String,
    distribution: String,
    size_mib: i64,
    pub(crate) used_at: i64,
}

pub(crate) fn status_word(status: BuildStatus) -> &'static str {
    match status {
        BuildStatus::Waiting => "waiting",
        BuildStatus::Building => "building",
        BuildStatus::Ready => "ready",
        BuildStatus::Failed => "error",
    }
}

pub(crate) fn status(word: &str) -> Result<BuildStatus, Misread> {
    match word {
        "waiting" => Ok(BuildStatus::Waiting),
        "building" => Ok(BuildStatus::Building),
        "ready" => Ok(BuildStatus::Ready),
        "error" => Ok(BuildStatus::Failed),
        other => Err(unknown_word("status of a build", other)),
    }
}

pub(crate) fn layers_of(text: &str) -> Result<Vec<String>, Misread> {
    from_json(text)
}

pub(crate) fn layers_text(layers: &[String]) -> String {
    to_json(layers)
}

pub(crate) fn layers(text: &str) -> Result<Vec<String>, Misread> {
    from_json(text)
}

pub(crate) fn failure_text(failure: &BuildFailure) -> String {
    to_json(failure)
}

pub(crate) fn startup_text(startup: &Startup) -> String {
    to_json(startup)
}

/// `None` for none.
pub(crate) fn envs_text(envs: &BTreeMap<String, String>) -> Option<String> {
    (!envs.is_empty()).then(|| to_json(envs))
}

pub(crate) fn context_text(context: &BuildContext) -> String {
    to_json(context)
}

impl TryFrom<BuildRow> for Build {
    type Error = StoreError;

    fn try_from(row: BuildRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_build(row).named("build", &id)
    }
}

impl TryFrom<RecordRow> for BuildRecord {
    type Error = StoreError;

    fn try_from(row: RecordRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_record(row).named("build", &id)
    }
}

impl TryFrom<CachedLayerRow> for CachedLayer {
    type Error = StoreError;

    fn try_from(row: CachedLayerRow) -> Result<Self, StoreError> {
        let key = row.key.clone();
        read_layer(row).named("cached layer", &key)
    }
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
        envs: row
            .envs
            .as_deref()
            .map(from_json)
            .transpose()?
            .unwrap_or_default(),
        startup: row.startup.as_deref().map(from_json).transpose()?,
        distribution: distribution(&row.distribution)?,
        created_at: timestamp(row.created_at)?,
    })
}

fn read_record(row: RecordRow) -> Result<BuildRecord, Misread> {
    let status = status(&row.status)?;
    Ok(BuildRecord {
        id: BuildId::parse(&row.id)?,
        template: TemplateId::parse(&row.template_id)?,
        status,
        failure: row.failure.as_deref().map(from_json).transpose()?,
        resources: Resources {
            vcpus: small(row.vcpus)?,
            memory_mib: small(row.memory_mib)?,
            disk_mib: small(row.disk_mib)?,
            processes_max: small(row.processes_max)?,
        },
        disk_size_mib: row.disk_size_mib.map(small).transpose()?,
        envd_version: (status == BuildStatus::Ready).then_some(row.envd_version),
        created_at: timestamp(row.created_at)?,
        updated_at: timestamp(row.updated_at)?,
        finished_at: row.finished_at.map(timestamp).transpose()?,
    })
}

fn read_layer(row: CachedLayerRow) -> Result<CachedLayer, Misread> {
    Ok(CachedLayer {
        layers: from_json(&row.layers)?,
        files: row.files.as_deref().map(SnapshotId::parse).transpose()?,
        context: from_json(&row.context)?,
        distribution: distribution(&row.distribution)?,
        size_mib: small(row.size_mib)?,
    })
}

fn distribution(word: &str) -> Result<Distribution, Misread> {
    Distribution::of_word(word).ok_or_else(|| unknown_word("distribution", word))
}
