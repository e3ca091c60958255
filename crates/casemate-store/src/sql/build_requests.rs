//! Asking for a build, and beginning it.

use casemate_sql::{Sql, Tx, Value, query, query_as, query_scalar, sql, transaction};
use casemate_types::{BuildStatus, Distribution, TemplateId, Timestamp};

use super::build_rows::{assign_tag, count_build};
use super::{SqlStore, failed};
use crate::error::Cause;
use crate::rows::{Named, failure_text, layers_text, micros, source_word, status_word};
use crate::{BuildBegun, BuildId, BuildRequested, NewBuild, StoreError, TemplateSource};

const WHAT: &str = "build";

/// `$1` the team, `$2` since when, `$3` a template whose builds under `$4` are left out, `$5` since when
/// those count that nobody began.
pub(super) const COUNT_OPEN: Sql = sql!(
    "\
     SELECT COUNT(*) FROM builds b JOIN templates t ON t.id = b.template_id \
     WHERE b.status IN ('waiting', 'building') AND b.created_at >= $2 AND t.team_id = $1 \
      AND (b.status = 'building' OR b.created_at >= $5) \
      AND NOT (b.template_id = $3 AND EXISTS (SELECT 1 FROM template_tags g \
          WHERE g.build_id = b.id AND g.tag",
    is_in("$4"),
    "))"
);

/// Id, team, source and whether it is public.
type NamedRow = (String, Option<String>, String, bool);

/// To which template an alias leads.
enum Target {
    New,
    Own { template: TemplateId, public: bool },
    Taken,
}

/// See [`crate::Builds::build_request`].
pub(super) async fn request(
    store: &SqlStore,
    new: &NewBuild,
) -> Result<BuildRequested, StoreError> {
    let refused = |error| failed(WHAT, new.build, error);
    transaction!(store.durable, refused, async |tx| {
        let (template, public, is_new) = match target(tx, new).await? {
            Target::New => (new.template.clone(), false, true),
            Target::Own { template, public } => (template, public, false),
            Target::Taken => return Ok(BuildRequested::AliasTaken),
        };
        if count_open(tx, new, &template).await? >= i64::from(new.builds_max) {
            return Ok(BuildRequested::TooMany);
        }
        if is_new {
            put_template(tx, new).await?;
        }
        count_build(tx, &template, new.at).await?;
        supersede(tx, new, &template).await?;
        put_waiting(tx, new, &template).await?;
        for tag in &new.tags {
            assign_tag(tx, &template, new.build, tag, new.at).await?;
        }
        Ok(BuildRequested::Done { template, public })
    })
}

/// An alias of the team's; else the alias must not hide a template's id, even a deleted one's.
async fn target(tx: &mut Tx, new: &NewBuild) -> Result<Target, StoreError> {
    let refused = |error| failed("alias", &new.alias, error);
    let named: Option<NamedRow> = query_as(
        "SELECT t.id, t.team_id, t.source, t.public \
         FROM template_aliases a JOIN templates t ON t.id = a.template_id \
         WHERE a.namespace = $1 AND a.alias = $2",
    )
    .bind(&new.namespace)
    .bind(&new.alias)
    .fetch_optional(&mut *tx)
    .await
    .map_err(refused)?;
    if let Some((id, team, source, public)) = named {
        let is_own = team.as_deref() == Some(new.team.as_str());
        if !is_own || source != source_word(TemplateSource::Build) {
            return Ok(Target::Taken);
        }
        let template = TemplateId::parse(&id).map_err(Cause::from);
        let template = template.named("template", &id)?;
        return Ok(Target::Own { template, public });
    }
    let hidden: Option<String> = query_scalar(
        "SELECT id FROM templates WHERE id = $1 \
         UNION ALL SELECT id FROM spent_template_ids WHERE id = $1 LIMIT 1",
    )
    .bind(&new.alias)
    .fetch_optional(&mut *tx)
    .await
    .map_err(refused)?;
    Ok(hidden.map_or(Target::New, |_| Target::Taken))
}

/// Builds that take room beside the new one.
async fn count_open(tx: &mut Tx, new: &NewBuild, template: &TemplateId) -> Result<i64, StoreError> {
    query_scalar(COUNT_OPEN)
        .bind(new.team.as_str())
        .bind(micros(new.counted_from))
        .bind(template.as_str())
        .bind(tags_text(&new.tags))
        .bind(micros(new.waiting_counted_from))
        .fetch_one(tx)
        .await
        .map_err(|error| failed("builds of team", &new.team, error))
}

async fn put_template(tx: &mut Tx, new: &NewBuild) -> Result<(), StoreError> {
    query(
        "INSERT INTO templates (id, team_id, public, source, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $5)",
    )
    .bind(new.template.as_str())
    .bind(new.team.as_str())
    .bind(false)
    .bind(source_word(TemplateSource::Build))
    .bind(micros(new.at))
    .execute(&mut *tx)
    .await
    .map_err(|error| failed("template", &new.template, error))?;
    query(
        "INSERT INTO template_aliases (namespace, alias, template_id, created_at) \
         VALUES ($1, $2, $3, $4)",
    )
    .bind(&new.namespace)
    .bind(&new.alias)
    .bind(new.template.as_str())
    .bind(micros(new.at))
    .execute(tx)
    .await
    .map_err(|error| failed("alias", &new.alias, error))?;
    Ok(())
}

/// Those that wait for the same tag never get it.
async fn supersede(tx: &mut Tx, new: &NewBuild, template: &TemplateId) -> Result<(), StoreError> {
    query(sql!(
        "UPDATE builds SET status = 'error', failure = $3, updated_at = $4, finished_at = $4 \
         WHERE template_id = $1 AND status = 'waiting' \
         AND EXISTS (SELECT 1 FROM template_tags g WHERE g.build_id = builds.id \
             AND g.tag",
        is_in("$2"),
        ")"
    ))
    .bind(template.as_str())
    .bind(tags_text(&new.tags))
    .bind(failure_text(&new.superseded))
    .bind(micros(new.at))
    .execute(tx)
    .await
    .map_err(|error| failed(WHAT, new.build, error))?;
    Ok(())
}

/// What is known of it when it is ready is empty until then.
async fn put_waiting(tx: &mut Tx, new: &NewBuild, template: &TemplateId) -> Result<(), StoreError> {
    query(
        "INSERT INTO builds (id, template_id, status, layers, vcpus, memory_mib, disk_mib, \
         processes_max, default_user, envd_version, distribution, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', '', $9, $10, $10)",
    )
    .bind(new.build.to_string())
    .bind(template.as_str())
    .bind(status_word(BuildStatus::Waiting))
    .bind(layers_text(&[]))
    .bind(i64::from(new.resources.vcpus))
    .bind(i64::from(new.resources.memory_mib))
    .bind(i64::from(new.resources.disk_mib))
    .bind(i64::from(new.resources.processes_max))
    .bind(Distribution::Other.word())
    .bind(micros(new.at))
    .execute(tx)
    .await
    .map_err(|error| failed(WHAT, new.build, error))?;
    Ok(())
}

/// See [`crate::Builds::build_begin`].
pub(super) async fn begin(
    store: &SqlStore,
    id: BuildId,
    owner: &str,
    at: Timestamp,
) -> Result<BuildBegun, StoreError> {
    let refused = |error| failed(WHAT, id, error);
    transaction!(store.durable, refused, async |tx| {
        let begun = query(
            "UPDATE builds SET status = 'building', updated_at = $2, owner = $3 \
             WHERE id = $1 AND status = 'waiting'",
        )
        .bind(id.to_string())
        .bind(micros(at))
        .bind(owner)
        .execute(&mut *tx)
        .await
        .map_err(refused)?;
        if begun == 0 {
            let found: Option<String> = query_scalar(
                "SELECT b.status FROM builds b JOIN templates t ON t.id = b.template_id \
                 WHERE b.id = $1 AND t.deleted = 0",
            )
            .bind(id.to_string())
            .fetch_optional(&mut *tx)
            .await
            .map_err(refused)?;
            return Ok(found.map_or(BuildBegun::Unknown, |_| BuildBegun::NotWaiting));
        }
        let rivals: Vec<String> = query_scalar(
            "SELECT b.id FROM builds me JOIN builds b ON b.template_id = me.template_id \
             WHERE me.id = $1 AND b.id <> $1 AND b.status = 'building' \
             AND EXISTS (SELECT 1 FROM template_tags mine JOIN template_tags its \
                 ON its.template_id = mine.template_id AND its.tag = mine.tag \
                 WHERE mine.build_id = $1 AND its.build_id = b.id) \
             ORDER BY b.created_at, b.id",
        )
        .bind(id.to_string())
        .fetch_all(&mut *tx)
        .await
        .map_err(refused)?;
        let rivals = super::builds::read_ids(&rivals)?;
        Ok(BuildBegun::Began { rivals })
    })
}

fn tags_text(tags: &[String]) -> Value {
    Value::texts(tags)
}
