//! [`Templates`].

use async_trait::async_trait;
use casemate_types::template::{DEFAULT_TAG, TemplateRef};
use casemate_types::{TemplateId, Timestamp};
use sqlx::{SqliteConnection, SqliteExecutor};

use super::{SqliteStore, failed};
use crate::rows::{BuildRow, MatchRow, TemplateRow, layers_text, micros};
use crate::{Build, BuildId, NodeReport, Resolution, StoreError, Template, Templates};

/// Of [`TemplateRow`], from `templates t`.
macro_rules! template_columns {
    () => {
        "t.id, t.team_id, t.public, t.source, t.created_at, \
         (SELECT a.alias FROM template_aliases a WHERE a.template_id = t.id \
          ORDER BY a.created_at, a.namespace, a.alias LIMIT 1) AS alias"
    };
}

/// Of [`BuildRow`], from `builds b`.
macro_rules! build_columns {
    () => {
        "b.id, b.template_id, b.layers, b.vcpus, b.memory_mib, b.disk_mib, b.processes_max, \
         b.default_user, b.default_workdir, b.envd_version, b.created_at, \
         (SELECT s.files FROM snapshots s WHERE s.build_id = b.id) AS files"
    };
}

/// `$1` a namespace, `$2` a name, `$3` whether the name may also be a promoted alias or an id.
const RESOLVE: &str = concat!(
    "SELECT m.identifier, ",
    template_columns!(),
    " FROM (SELECT 1 AS step, n.template_id AS id, n.namespace || '/' || n.alias AS identifier \
            FROM template_aliases n WHERE n.namespace = $1 AND n.alias = $2 AND $1 <> '' \
      UNION ALL SELECT 2, p.template_id, p.alias \
            FROM template_aliases p WHERE p.namespace = '' AND p.alias = $2 AND $3 \
      UNION ALL SELECT 3, i.id, i.id FROM templates i WHERE i.id = $2 AND $3) m \
     JOIN templates t ON t.id = m.id ORDER BY m.step LIMIT 1"
);

#[async_trait]
impl Templates for SqliteStore {
    async fn template_resolve(
        &self,
        home: &str,
        reference: &TemplateRef,
    ) -> Result<Resolution, StoreError> {
        let explicit = reference.namespace.as_deref();
        let row: Option<MatchRow> = sqlx::query_as(RESOLVE)
            .bind(explicit.unwrap_or(home))
            .bind(&reference.name)
            .bind(explicit.is_none())
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed("template", &reference.name, error))?;
        let Some(MatchRow {
            template,
            identifier,
        }) = row
        else {
            return Ok(Resolution::Unknown);
        };
        let template = Template::try_from(template)?;
        let build = build_by_tag(&self.readers, &template.id, &reference.tag).await?;
        Ok(match build {
            Some(build) => Resolution::Found {
                template,
                identifier,
                build,
            },
            None => Resolution::NoBuild {
                template,
                identifier,
            },
        })
    }

    async fn build_by_id(&self, id: &BuildId) -> Result<Option<Build>, StoreError> {
        build_by_id(&self.readers, *id).await
    }

    async fn template_by_id(&self, id: &TemplateId) -> Result<Option<Template>, StoreError> {
        template_by_id(&self.readers, id).await
    }

    async fn template_report(
        &self,
        report: &NodeReport,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if self.is_current(report).await? {
            return Ok(false);
        }
        let refused = |error| failed("template", &report.build.template, error);
        let mut tx = self
            .durable
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(refused)?;
        let mut changed = put_template(&mut tx, &report.build, now).await?;
        changed |= put_build(&mut tx, &report.build).await?;
        changed |= move_tag(&mut tx, &report.build, now).await?;
        changed |= move_alias(&mut tx, report, now).await?;
        tx.commit().await.map_err(refused)?;
        Ok(changed)
    }
}

impl SqliteStore {
    /// Whether the report says only what is known: the usual case, answered without the writer.
    async fn is_current(&self, report: &NodeReport) -> Result<bool, StoreError> {
        let Some(alias) = alias_target(&self.readers, &report.alias).await? else {
            return Ok(false);
        };
        if alias != report.build.template.as_str() {
            return Ok(false);
        }
        let tagged = build_by_tag(&self.readers, &report.build.template, DEFAULT_TAG).await?;
        Ok(tagged.is_some_and(|kept| same(&kept, &report.build)))
    }
}

/// Equal as far as it is kept.
fn same(kept: &Build, reported: &Build) -> bool {
    let reported = Build {
        created_at: kept.created_at,
        ..reported.clone()
    };
    *kept == reported
}

async fn put_template(
    tx: &mut SqliteConnection,
    build: &Build,
    now: Timestamp,
) -> Result<bool, StoreError> {
    match template_by_id(&mut *tx, &build.template).await? {
        Some(kept) if kept.owner.is_some() => Err(exists("template", &build.template)),
        Some(_) => Ok(false),
        None => {
            sqlx::query(
                "INSERT INTO templates (id, team_id, public, created_at) \
                 VALUES ($1, NULL, $2, $3)",
            )
            .bind(build.template.as_str())
            .bind(true)
            .bind(micros(now))
            .execute(&mut *tx)
            .await
            .map_err(|error| failed("template", &build.template, error))?;
            Ok(true)
        }
    }
}

/// Writes the build unless it is kept as reported. The time of its creation stays as it was
/// first heard.
pub(super) async fn put_build(
    tx: &mut SqliteConnection,
    build: &Build,
) -> Result<bool, StoreError> {
    match build_by_id(&mut *tx, build.id).await? {
        Some(kept) if kept.template != build.template => return Err(exists("build", build.id)),
        Some(kept) if same(&kept, build) => return Ok(false),
        Some(_) | None => {}
    }
    sqlx::query(
        "INSERT INTO builds (id, template_id, layers, vcpus, memory_mib, disk_mib, \
         processes_max, default_user, default_workdir, envd_version, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (id) DO UPDATE SET layers = excluded.layers, vcpus = excluded.vcpus, \
         memory_mib = excluded.memory_mib, disk_mib = excluded.disk_mib, \
         processes_max = excluded.processes_max, default_user = excluded.default_user, \
         default_workdir = excluded.default_workdir, envd_version = excluded.envd_version",
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
    .bind(micros(build.created_at))
    .execute(&mut *tx)
    .await
    .map_err(|error| failed("build", build.id, error))?;
    Ok(true)
}

/// Points the default tag to the build unless it points to one as young.
async fn move_tag(
    tx: &mut SqliteConnection,
    build: &Build,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let kept = build_by_tag(&mut *tx, &build.template, DEFAULT_TAG).await?;
    if kept.is_some_and(|kept| !is_younger(build, &kept)) {
        return Ok(false);
    }
    assign_tag(tx, build, DEFAULT_TAG, now).await?;
    Ok(true)
}

/// An assignment is younger than the last one even when the clock is not.
pub(super) async fn assign_tag(
    tx: &mut SqliteConnection,
    build: &Build,
    tag: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO template_tags (template_id, tag, assigned_at, build_id) \
         SELECT $1, $2, COALESCE(MAX(MAX(assigned_at) + 1, $3), $3), $4 \
         FROM template_tags WHERE template_id = $1 AND tag = $2",
    )
    .bind(build.template.as_str())
    .bind(tag)
    .bind(micros(now))
    .bind(build.id.to_string())
    .execute(&mut *tx)
    .await
    .map_err(|error| failed("template", &build.template, error))?;
    Ok(())
}

/// Points the promoted alias to the template unless it leads to a build as young.
async fn move_alias(
    tx: &mut SqliteConnection,
    report: &NodeReport,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let build = &report.build;
    if let Some(target) = alias_target(&mut *tx, &report.alias).await? {
        if target == build.template.as_str() {
            return Ok(false);
        }
        let corrupt = |source| StoreError::Corrupt {
            what: "alias",
            id: report.alias.clone(),
            source,
        };
        let target = TemplateId::parse(&target).map_err(|error| corrupt(error.into()))?;
        let kept = template_by_id(&mut *tx, &target).await?;
        if kept.is_some_and(|kept| kept.owner.is_some()) {
            return Err(exists("alias", &report.alias));
        }
        let kept = build_by_tag(&mut *tx, &target, DEFAULT_TAG).await?;
        if kept.is_some_and(|kept| !is_younger(build, &kept)) {
            return Ok(false);
        }
    }
    sqlx::query(
        "INSERT INTO template_aliases (namespace, alias, template_id, created_at) \
         VALUES ('', $1, $2, $3) \
         ON CONFLICT (namespace, alias) DO UPDATE SET template_id = excluded.template_id",
    )
    .bind(&report.alias)
    .bind(build.template.as_str())
    .bind(micros(now))
    .execute(&mut *tx)
    .await
    .map_err(|error| failed("alias", &report.alias, error))?;
    Ok(true)
}

/// By creation, as far as it is kept; of two as old, the one with the greater id, so that nodes
/// which report both do not take turns.
fn is_younger(build: &Build, kept: &Build) -> bool {
    (micros(build.created_at), build.id) > (micros(kept.created_at), kept.id)
}

fn exists(what: &'static str, id: impl ToString) -> StoreError {
    StoreError::Exists {
        what,
        id: id.to_string(),
    }
}

async fn alias_target(
    db: impl SqliteExecutor<'_>,
    alias: &str,
) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar(
        "SELECT template_id FROM template_aliases WHERE namespace = '' AND alias = $1",
    )
    .bind(alias)
    .fetch_optional(db)
    .await
    .map_err(|error| failed("alias", alias, error))
}

async fn template_by_id(
    db: impl SqliteExecutor<'_>,
    id: &TemplateId,
) -> Result<Option<Template>, StoreError> {
    let sql = concat!(
        "SELECT ",
        template_columns!(),
        " FROM templates t WHERE t.id = $1"
    );
    let row: Option<TemplateRow> = sqlx::query_as(sql)
        .bind(id.as_str())
        .fetch_optional(db)
        .await
        .map_err(|error| failed("template", id, error))?;
    row.map(Template::try_from).transpose()
}

async fn build_by_id(
    db: impl SqliteExecutor<'_>,
    id: BuildId,
) -> Result<Option<Build>, StoreError> {
    let sql = concat!(
        "SELECT ",
        build_columns!(),
        " FROM builds b WHERE b.id = $1"
    );
    let row: Option<BuildRow> = sqlx::query_as(sql)
        .bind(id.to_string())
        .fetch_optional(db)
        .await
        .map_err(|error| failed("build", id, error))?;
    row.map(Build::try_from).transpose()
}

pub(super) async fn build_by_tag(
    db: impl SqliteExecutor<'_>,
    template: &TemplateId,
    tag: &str,
) -> Result<Option<Build>, StoreError> {
    let sql = concat!(
        "SELECT ",
        build_columns!(),
        " FROM template_tags g JOIN builds b ON b.id = g.build_id \
         WHERE g.template_id = $1 AND g.tag = $2 ORDER BY g.assigned_at DESC LIMIT 1"
    );
    let row: Option<BuildRow> = sqlx::query_as(sql)
        .bind(template.as_str())
        .bind(tag)
        .fetch_optional(db)
        .await
        .map_err(|error| failed("tag", tag, error))?;
    row.map(Build::try_from).transpose()
}
