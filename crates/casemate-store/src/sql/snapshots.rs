//! [`Snapshots`].

use async_trait::async_trait;
use casemate_sql::{Tx, Value, query, query_as, query_scalar, sql, transaction};
use casemate_types::sandbox::PublicState;
use casemate_types::{SnapshotId, TeamId, TemplateId, Timestamp};

use super::build_rows::{assign_tag, build_by_tag, put_build};
use super::{SqlStore, failed, kept_files};
use crate::error::Cause;
use crate::rows::{Named, SnapshotRow, micros, source_word};
use crate::{
    Build, NewSnapshot, PlacedSnapshot, Snapshot, SnapshotCursor, SnapshotFilter, Snapshots,
    StoreError, TemplateDeleted, TemplateSource,
};

const WHAT: &str = "snapshot";

/// Those that a tag points to now: `$1` the team, `$2` to `$4` what is asked for, `$5` to `$7` the
/// one before, `$8` how many.
const PAGE: &str = "\
    SELECT t.id AS template_id, g.tag, s.build_id, s.files, s.node, s.sandbox_id, s.created_at, \
     (SELECT a.alias FROM template_aliases a WHERE a.template_id = t.id \
      ORDER BY a.created_at, a.namespace, a.alias LIMIT 1) AS alias \
    FROM templates t \
    JOIN template_tags g ON g.template_id = t.id \
    JOIN snapshots s ON s.build_id = g.build_id \
    WHERE t.team_id = $1 AND t.source = 'snapshot' \
     AND NOT EXISTS (SELECT 1 FROM template_tags y WHERE y.template_id = g.template_id \
         AND y.tag = g.tag AND y.assigned_at > g.assigned_at) \
     AND ($2 IS NULL OR s.sandbox_id = $2) \
     AND ($3 IS NULL OR t.id = $3 OR EXISTS (SELECT 1 FROM template_aliases n \
         WHERE n.template_id = t.id AND n.alias = $3)) \
     AND ($4 IS NULL OR g.tag = $4) \
     AND ($5 IS NULL OR s.created_at < $5 OR (s.created_at = $5 \
         AND (s.build_id > $6 OR (s.build_id = $6 AND g.tag > $7)))) \
    ORDER BY s.created_at DESC, s.build_id, g.tag LIMIT $8";

#[async_trait]
impl Snapshots for SqlStore {
    async fn snapshot_insert(&self, snapshot: &NewSnapshot) -> Result<PlacedSnapshot, StoreError> {
        let refused = |error| failed(WHAT, snapshot.build.id, error);
        transaction!(self.durable, refused, async |tx| {
            let template = match named_template(tx, snapshot).await? {
                Some(template) => template,
                None => {
                    new_template(tx, snapshot).await?;
                    snapshot.build.template.clone()
                }
            };
            let build = Build {
                template: template.clone(),
                ..snapshot.build.clone()
            };
            let before = build_by_tag(&mut *tx, &template, &snapshot.tag).await?;
            put_build(tx, &build, build.created_at).await?;
            put_files(tx, snapshot).await?;
            let (tag, at) = (&snapshot.tag, build.created_at);
            assign_tag(tx, &template, build.id, tag, at).await?;
            let replaced = match before {
                Some(before) => drop_unnamed(tx, &before).await?,
                None => None,
            };
            Ok(PlacedSnapshot { template, replaced })
        })
    }

    async fn snapshot_page(
        &self,
        filter: &SnapshotFilter,
        after: Option<&SnapshotCursor>,
        rows_max: u32,
    ) -> Result<Vec<Snapshot>, StoreError> {
        let rows: Vec<SnapshotRow> = query_as(PAGE)
            .bind(filter.team.as_str())
            .bind(filter.sandbox.as_ref().map(|id| id.as_str()))
            .bind(filter.name.as_deref())
            .bind(filter.tag.as_deref())
            .bind(after.map(|cursor| micros(cursor.created_at)))
            .bind(after.map(|cursor| cursor.build.to_string()))
            .bind(after.map(|cursor| cursor.tag.as_str()))
            .bind(i64::from(rows_max))
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("snapshots of team", &filter.team, error))?;
        rows.into_iter().map(Snapshot::try_from).collect()
    }

    async fn snapshot_wanted(&self, files: &[SnapshotId]) -> Result<Vec<SnapshotId>, StoreError> {
        let asked: Vec<&str> = files.iter().map(|id| id.as_str()).collect();
        let found: Vec<String> = query_scalar(sql!(
            "SELECT files FROM snapshots WHERE files",
            is_in("$1"),
            " \
             UNION \
             SELECT files FROM cached_layers WHERE files",
            is_in("$1")
        ))
        .bind(Value::texts(asked))
        .fetch_all(&self.readers)
        .await
        .map_err(|error| failed("table", "snapshots", error))?;
        kept_files::read(&found)
    }

    async fn snapshot_expire(
        &self,
        team: &TeamId,
        before: Timestamp,
    ) -> Result<Vec<SnapshotId>, StoreError> {
        let refused = |error| failed("snapshots of team", team, error);
        transaction!(self.durable, refused, async |tx| {
            let files: Vec<String> = query_scalar(
                "DELETE FROM snapshots WHERE created_at < $2 AND build_id IN ( \
                 SELECT b.id FROM builds b JOIN templates t ON t.id = b.template_id \
                 WHERE t.team_id = $1 AND t.source = 'snapshot' AND NOT EXISTS ( \
                     SELECT 1 FROM sandboxes x \
                     WHERE x.template_id = t.id AND x.state <> 'dead')) RETURNING files",
            )
            .bind(team.as_str())
            .bind(micros(before))
            .fetch_all(&mut *tx)
            .await
            .map_err(refused)?;
            // Tags of builds without files lead nowhere; a template without any is none.
            for sql in [
                "DELETE FROM template_tags WHERE template_id IN ( \
                 SELECT id FROM templates WHERE team_id = $1 AND source = 'snapshot') \
             AND NOT EXISTS (SELECT 1 FROM snapshots s WHERE s.build_id = template_tags.build_id) \
             AND NOT EXISTS (SELECT 1 FROM sandboxes x \
                 WHERE x.template_id = template_tags.template_id AND x.state <> 'dead')",
                "DELETE FROM builds WHERE template_id IN ( \
                     SELECT id FROM templates WHERE team_id = $1 AND source = 'snapshot') \
                 AND NOT EXISTS (SELECT 1 FROM template_tags g WHERE g.build_id = builds.id) \
                 AND NOT EXISTS (SELECT 1 FROM snapshots s WHERE s.build_id = builds.id) \
                 AND NOT EXISTS (SELECT 1 FROM sandboxes x \
                     WHERE x.template_id = builds.template_id AND x.state <> 'dead')",
                "DELETE FROM template_aliases WHERE template_id IN ( \
                     SELECT id FROM templates WHERE team_id = $1 AND source = 'snapshot') \
                 AND NOT EXISTS (SELECT 1 FROM builds b \
                     WHERE b.template_id = template_aliases.template_id)",
                "DELETE FROM templates WHERE team_id = $1 AND source = 'snapshot' \
                 AND NOT EXISTS (SELECT 1 FROM builds b WHERE b.template_id = templates.id)",
            ] {
                let gone = query(sql).bind(team.as_str()).execute(&mut *tx).await;
                gone.map_err(refused)?;
            }
            let files = kept_files::unnamed(tx, &files).await?;
            Ok(files)
        })
    }

    async fn template_delete(&self, id: &TemplateId) -> Result<TemplateDeleted, StoreError> {
        let refused = |error| failed("template", id, error);
        transaction!(self.durable, refused, async |tx| {
            // Sandboxes of other teams go on with what they were made from.
            let state: Option<String> = query_scalar(
                "SELECT x.state FROM sandboxes x JOIN templates t ON t.id = x.template_id \
                 WHERE x.template_id = $1 AND x.state <> 'dead' \
                 AND (t.team_id IS NULL OR t.team_id = x.team_id) ORDER BY x.state DESC LIMIT 1",
            )
            .bind(id.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(refused)?;
            match state.as_deref() {
                None => {}
                Some("paused") => return Ok(TemplateDeleted::InUse(PublicState::Paused)),
                Some(_) => return Ok(TemplateDeleted::InUse(PublicState::Running)),
            }
            let hidden = query("UPDATE templates SET deleted = 1 WHERE id = $1 AND deleted = 0")
                .bind(id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(refused)?;
            if hidden == 0 {
                return Ok(TemplateDeleted::Unknown);
            }
            for sql in [
                "DELETE FROM template_tags WHERE template_id = $1",
                "DELETE FROM template_aliases WHERE template_id = $1",
                "INSERT INTO spent_template_ids (id) VALUES ($1) ON CONFLICT DO NOTHING",
            ] {
                let gone = query(sql).bind(id.as_str()).execute(&mut *tx).await;
                gone.map_err(refused)?;
            }
            let files = drop_deleted(tx).await?;
            Ok(TemplateDeleted::Done(files))
        })
    }

    async fn template_purge(&self) -> Result<Vec<SnapshotId>, StoreError> {
        let refused = |error| failed("table", "templates", error);
        // Almost always there are none, and then no writer is needed.
        let some: Option<String> =
            query_scalar("SELECT id FROM templates WHERE deleted = 1 LIMIT 1")
                .fetch_optional(&self.readers)
                .await
                .map_err(refused)?;
        if some.is_none() {
            return Ok(Vec::new());
        }
        transaction!(self.durable, refused, async |tx| {
            let files = drop_deleted(tx).await?;
            Ok(files)
        })
    }
}

/// Of templates that were deleted: the builds that no sandbox runs from, and then the templates.
async fn drop_deleted(tx: &mut Tx) -> Result<Vec<SnapshotId>, StoreError> {
    let refused = |error| failed("table", "builds", error);
    let files: Vec<String> = query_scalar(
        "DELETE FROM snapshots WHERE build_id IN ( \
             SELECT b.id FROM templates t JOIN builds b ON b.template_id = t.id \
             WHERE t.deleted = 1 AND NOT EXISTS (SELECT 1 FROM sandboxes x \
                 WHERE x.template_id = t.id AND x.build_id = b.id AND x.state <> 'dead')) \
         RETURNING files",
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(refused)?;
    for sql in [
        "DELETE FROM builds WHERE id IN ( \
             SELECT b.id FROM templates t JOIN builds b ON b.template_id = t.id \
             WHERE t.deleted = 1 AND NOT EXISTS (SELECT 1 FROM sandboxes x \
                 WHERE x.template_id = t.id AND x.build_id = b.id AND x.state <> 'dead'))",
        "DELETE FROM templates WHERE deleted = 1 \
         AND NOT EXISTS (SELECT 1 FROM builds b WHERE b.template_id = templates.id)",
    ] {
        let gone = query(sql).execute(&mut *tx).await;
        gone.map_err(refused)?;
    }
    kept_files::unnamed(tx, &files).await
}

/// The template that has the snapshot's name already.
async fn named_template(
    tx: &mut Tx,
    snapshot: &NewSnapshot,
) -> Result<Option<TemplateId>, StoreError> {
    let Some(alias) = &snapshot.alias else {
        return Ok(None);
    };
    let found: Option<(String, String)> = query_as(
        "SELECT t.id, t.source FROM template_aliases a JOIN templates t ON t.id = a.template_id \
         WHERE a.namespace = $1 AND a.alias = $2 \
         UNION ALL SELECT id, '' FROM templates WHERE id = $2 \
         UNION ALL SELECT id, '' FROM spent_template_ids WHERE id = $2 ORDER BY 2 DESC LIMIT 1",
    )
    .bind(&snapshot.namespace)
    .bind(alias)
    .fetch_optional(&mut *tx)
    .await
    .map_err(|error| failed("alias", alias, error))?;
    match found {
        None => Ok(None),
        Some((id, source)) if source == source_word(TemplateSource::Snapshot) => {
            let id = TemplateId::parse(&id)
                .map_err(Cause::from)
                .named("template", &id)?;
            Ok(Some(id))
        }
        Some(_) => Err(StoreError::Exists {
            what: "template",
            id: alias.clone(),
        }),
    }
}

async fn new_template(tx: &mut Tx, snapshot: &NewSnapshot) -> Result<(), StoreError> {
    let id = &snapshot.build.template;
    let at = micros(snapshot.build.created_at);
    query(
        "INSERT INTO templates (id, team_id, public, created_at, updated_at, source) \
         VALUES ($1, $2, $3, $4, $4, $5)",
    )
    .bind(id.as_str())
    .bind(snapshot.team.as_str())
    .bind(false)
    .bind(at)
    .bind(source_word(TemplateSource::Snapshot))
    .execute(&mut *tx)
    .await
    .map_err(|error| failed("template", id, error))?;
    if let Some(alias) = &snapshot.alias {
        query(
            "INSERT INTO template_aliases (namespace, alias, template_id, created_at) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(&snapshot.namespace)
        .bind(alias)
        .bind(id.as_str())
        .bind(at)
        .execute(&mut *tx)
        .await
        .map_err(|error| failed("alias", alias, error))?;
    }
    Ok(())
}

async fn put_files(tx: &mut Tx, snapshot: &NewSnapshot) -> Result<(), StoreError> {
    let build = &snapshot.build;
    query(
        "INSERT INTO snapshots (build_id, files, node, sandbox_id, created_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(build.id.to_string())
    .bind(build.files.as_ref().map(|files| files.as_str()))
    .bind(&snapshot.node)
    .bind(snapshot.sandbox.as_str())
    .bind(micros(build.created_at))
    .execute(&mut *tx)
    .await
    .map_err(|error| failed(WHAT, build.id, error))?;
    Ok(())
}

/// Gives the files of a build up that no tag points to any more. The build stays: what was made from
/// it is started again over its layers.
async fn drop_unnamed(tx: &mut Tx, build: &Build) -> Result<Option<SnapshotId>, StoreError> {
    let files: Vec<String> = query_scalar(
        "DELETE FROM snapshots WHERE build_id = $1 AND NOT EXISTS ( \
             SELECT 1 FROM template_tags g WHERE g.build_id = $1 AND NOT EXISTS ( \
                 SELECT 1 FROM template_tags y WHERE y.template_id = g.template_id \
                 AND y.tag = g.tag AND y.assigned_at > g.assigned_at)) RETURNING files",
    )
    .bind(build.id.to_string())
    .fetch_all(&mut *tx)
    .await
    .map_err(|error| failed(WHAT, build.id, error))?;
    Ok(kept_files::unnamed(tx, &files).await?.pop())
}
