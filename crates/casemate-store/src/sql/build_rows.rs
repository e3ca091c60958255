//! Builds and their tags, as more than one port writes and finds them.

use casemate_sql::{On, Tx, query, query_as};
use casemate_types::{TemplateId, Timestamp};

use super::failed;
use crate::rows::{BuildRow, envs_text, layers_text, micros, startup_text};
use crate::{Build, BuildId, StoreError};

/// Of [`BuildRow`], from `builds b`.
macro_rules! build_columns {
    () => {
        "b.id, b.template_id, b.layers, b.vcpus, b.memory_mib, b.disk_mib, b.processes_max, \
         b.default_user, b.default_workdir, b.envd_version, b.envs, b.startup, b.distribution, \
         b.created_at, (SELECT s.files FROM snapshots s WHERE s.build_id = b.id) AS files"
    };
}

/// A snapshot's build whose files were given up is not what its owner kept.
const BY_ID_OF_TEMPLATE: &str = concat!(
    "SELECT ",
    build_columns!(),
    " FROM builds b JOIN templates t ON t.id = b.template_id \
     WHERE b.template_id = $1 AND b.id = $2 AND b.status = 'ready' \
     AND (t.source <> 'snapshot' \
         OR EXISTS (SELECT 1 FROM snapshots k WHERE k.build_id = b.id))"
);
const BY_TAG: &str = concat!(
    "SELECT ",
    build_columns!(),
    " FROM template_tags g JOIN builds b ON b.id = g.build_id \
     WHERE g.template_id = $1 AND g.tag = $2 AND b.status = 'ready' \
     ORDER BY g.assigned_at DESC LIMIT 1"
);

/// Equal as far as it is kept.
pub(super) fn same(kept: &Build, reported: &Build) -> bool {
    let reported = Build {
        created_at: kept.created_at,
        ..reported.clone()
    };
    *kept == reported
}

/// Writes a build that is ready, unless it is kept as given; whether anything was written. The time
/// of its creation stays as it was first heard. One that is new counts for its template.
pub(super) async fn put_build(
    tx: &mut Tx,
    build: &Build,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let refused = |error| failed("build", build.id, error);
    let sql = concat!(
        "SELECT ",
        build_columns!(),
        " FROM builds b WHERE b.id = $1"
    );
    let kept: Option<BuildRow> = query_as(sql)
        .bind(build.id.to_string())
        .fetch_optional(&mut *tx)
        .await
        .map_err(refused)?;
    let kept = kept.map(Build::try_from).transpose()?;
    match &kept {
        Some(kept) if kept.template != build.template => {
            return Err(StoreError::Exists {
                what: "build",
                id: build.id.to_string(),
            });
        }
        Some(kept) if same(kept, build) => return Ok(false),
        Some(_) | None => {}
    }
    query(
        "INSERT INTO builds (id, template_id, layers, vcpus, memory_mib, disk_mib, \
         processes_max, default_user, default_workdir, envd_version, startup, distribution, \
         created_at, status, updated_at, finished_at, envs) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'ready', $14, $14, $15) \
         ON CONFLICT (id) DO UPDATE SET layers = excluded.layers, vcpus = excluded.vcpus, \
         memory_mib = excluded.memory_mib, disk_mib = excluded.disk_mib, \
         processes_max = excluded.processes_max, default_user = excluded.default_user, \
         default_workdir = excluded.default_workdir, envd_version = excluded.envd_version, \
         envs = excluded.envs, startup = excluded.startup, distribution = excluded.distribution, \
         updated_at = excluded.updated_at",
    )
    .bind(build.id.to_string())
    .bind(build.template.as_str())
    .bind(layers_text(&build.layers))
    .bind(i64::from(build.resources.vcpus))
    .bind(i64::from(build.resources.memory_mib))
    .bind(i64::from(build.resources.disk_mib))
    .bind(i64::from(build.resources.processes_max))
    .bind(&build.default_user)
    .bind(build.default_workdir.as_deref())
    .bind(&build.envd_version)
    .bind(build.startup.as_ref().map(startup_text))
    .bind(build.distribution.word())
    .bind(micros(build.created_at))
    .bind(micros(now))
    .bind(envs_text(&build.envs))
    .execute(&mut *tx)
    .await
    .map_err(refused)?;
    if kept.is_none() {
        count_build(tx, &build.template, now).await?;
    }
    Ok(true)
}

/// One more was asked for.
pub(super) async fn count_build(
    tx: &mut Tx,
    template: &TemplateId,
    now: Timestamp,
) -> Result<(), StoreError> {
    query("UPDATE templates SET build_count = build_count + 1, updated_at = $2 WHERE id = $1")
        .bind(template.as_str())
        .bind(micros(now))
        .execute(tx)
        .await
        .map_err(|error| failed("template", template, error))?;
    Ok(())
}

/// An assignment is younger than the last one even when the clock is not.
pub(super) async fn assign_tag(
    tx: &mut Tx,
    template: &TemplateId,
    build: BuildId,
    tag: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO template_tags (template_id, tag, assigned_at, build_id) \
         SELECT $1, $2, CASE WHEN MAX(assigned_at) >= $3 THEN MAX(assigned_at) + 1 ELSE $3 END, $4 \
         FROM template_tags WHERE template_id = $1 AND tag = $2",
    )
    .bind(template.as_str())
    .bind(tag)
    .bind(micros(now))
    .bind(build.to_string())
    .execute(tx)
    .await
    .map_err(|error| failed("template", template, error))?;
    Ok(())
}

/// One that is ready, also of a template that was deleted.
pub(super) async fn build_by_id(
    db: impl Into<On<'_>>,
    id: BuildId,
) -> Result<Option<Build>, StoreError> {
    let sql = concat!(
        "SELECT ",
        build_columns!(),
        " FROM builds b WHERE b.id = $1 AND b.status = 'ready'"
    );
    let row: Option<BuildRow> = query_as(sql)
        .bind(id.to_string())
        .fetch_optional(db)
        .await
        .map_err(|error| failed("build", id, error))?;
    row.map(Build::try_from).transpose()
}

/// The one that is ready and got the tag last, or the one whose id the tag is.
pub(super) async fn build_by_tag(
    db: impl Into<On<'_>>,
    template: &TemplateId,
    tag: &str,
) -> Result<Option<Build>, StoreError> {
    let (sql, tag) = match BuildId::parse(tag) {
        Ok(id) => (BY_ID_OF_TEMPLATE, id.to_string()),
        Err(_) => (BY_TAG, tag.to_owned()),
    };
    let row: Option<BuildRow> = query_as(sql)
        .bind(template.as_str())
        .bind(&tag)
        .fetch_optional(db)
        .await
        .map_err(|error| failed("tag", tag, error))?;
    row.map(Build::try_from).transpose()
}
