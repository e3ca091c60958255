//! Tags of templates, as [`crate::Builds`] gives and takes them.

use casemate_sql::{Value, query, query_as, query_scalar, sql, transaction};
use casemate_types::{TemplateId, Timestamp};

use super::build_rows::assign_tag;
use super::{SqlStore, failed};
use crate::error::Cause;
use crate::rows::{Named, micros, timestamp};
use crate::{BuildId, StoreError, TagAssignment, TagEvent};

const WHAT: &str = "tags of template";

/// See [`crate::Builds::tags_assign`].
pub(super) async fn assign(
    store: &SqlStore,
    template: &TemplateId,
    build: BuildId,
    tags: &[String],
    at: Timestamp,
) -> Result<(), StoreError> {
    let refused = |error| failed(WHAT, template, error);
    transaction!(store.durable, refused, async |tx| {
        let found: Option<String> = query_scalar(
            "SELECT b.id FROM builds b JOIN templates t ON t.id = b.template_id \
             WHERE b.id = $1 AND t.id = $2 AND t.deleted = 0 AND b.status = 'ready'",
        )
        .bind(build.to_string())
        .bind(template.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(refused)?;
        if found.is_none() {
            return Err(StoreError::Dangling {
                what: WHAT,
                id: template.to_string(),
            });
        }
        for tag in tags {
            let holder: Option<String> = query_scalar(
                "SELECT build_id FROM template_tags WHERE template_id = $1 AND tag = $2 \
                 ORDER BY assigned_at DESC LIMIT 1",
            )
            .bind(template.as_str())
            .bind(tag)
            .fetch_optional(&mut *tx)
            .await
            .map_err(refused)?;
            if holder != Some(build.to_string()) {
                assign_tag(tx, template, build, tag, at).await?;
            }
        }
        query("UPDATE templates SET updated_at = $2 WHERE id = $1")
            .bind(template.as_str())
            .bind(micros(at))
            .execute(&mut *tx)
            .await
            .map_err(refused)?;
        Ok(())
    })
}

/// See [`crate::Builds::tags_remove`].
pub(super) async fn remove(
    store: &SqlStore,
    template: &TemplateId,
    tags: &[String],
) -> Result<(), StoreError> {
    query(sql!(
        "DELETE FROM template_tags \
         WHERE template_id = $1 AND tag",
        is_in("$2")
    ))
    .bind(template.as_str())
    .bind(Value::texts(tags))
    .execute(&store.durable)
    .await
    .map_err(|error| failed(WHAT, template, error))?;
    Ok(())
}

/// See [`crate::Builds::tags_list`].
pub(super) async fn list(
    store: &SqlStore,
    template: &TemplateId,
) -> Result<Vec<TagAssignment>, StoreError> {
    let rows: Vec<(String, String, i64)> = query_as(
        "SELECT g.tag, g.build_id, g.assigned_at FROM template_tags g WHERE g.template_id = $1 \
         AND NOT EXISTS (SELECT 1 FROM template_tags y WHERE y.template_id = g.template_id \
             AND y.tag = g.tag AND y.assigned_at > g.assigned_at) ORDER BY g.tag",
    )
    .bind(template.as_str())
    .fetch_all(&store.readers)
    .await
    .map_err(|error| failed(WHAT, template, error))?;
    let read = |(tag, build, assigned_at): (String, String, i64)| {
        let build = BuildId::parse(&build).map_err(Cause::from);
        build
            .and_then(|build| {
                Ok(TagAssignment {
                    tag,
                    build,
                    assigned_at: timestamp(assigned_at)?,
                })
            })
            .named(WHAT, template.as_str())
    };
    rows.into_iter().map(read).collect()
}

/// See [`crate::Builds::tags_latest`].
pub(super) async fn latest(
    store: &SqlStore,
    template: &TemplateId,
) -> Result<Vec<(String, Timestamp)>, StoreError> {
    let rows: Vec<(String, i64)> = query_as(
        "SELECT g.tag, MAX(g.assigned_at) FROM template_tags g JOIN builds b ON b.id = g.build_id \
         WHERE g.template_id = $1 AND b.status = 'ready' GROUP BY g.tag ORDER BY g.tag",
    )
    .bind(template.as_str())
    .fetch_all(&store.readers)
    .await
    .map_err(|error| failed(WHAT, template, error))?;
    let read = |(tag, assigned_at): (String, i64)| {
        let at = timestamp(assigned_at).named(WHAT, template.as_str())?;
        Ok((tag, at))
    };
    rows.into_iter().map(read).collect()
}

/// Tag, build, when; and of the build creation and end.
type EventRow = (String, String, i64, i64, Option<i64>);

/// See [`crate::Builds::tags_history`].
pub(super) async fn history(
    store: &SqlStore,
    template: &TemplateId,
    tags: &[String],
    before: Option<Timestamp>,
    rows_max: u32,
) -> Result<Vec<TagEvent>, StoreError> {
    let rows: Vec<EventRow> = query_as(sql!(
        "SELECT tag, build_id, assigned_at, created_at, finished_at FROM ( \
             SELECT g.tag, g.build_id, g.assigned_at, b.created_at, b.finished_at, \
                 ROW_NUMBER() OVER (PARTITION BY g.tag ORDER BY g.assigned_at DESC) AS place \
             FROM template_tags g JOIN builds b ON b.id = g.build_id \
             WHERE g.template_id = $1 AND g.tag",
        is_in("$2"),
        " \
              AND b.status = 'ready' AND ($3 IS NULL OR g.assigned_at < $3)) AS placed \
         WHERE place <= $4 ORDER BY tag, assigned_at DESC"
    ))
    .bind(template.as_str())
    .bind(Value::texts(tags))
    .bind(before.map(micros))
    .bind(i64::from(rows_max))
    .fetch_all(&store.readers)
    .await
    .map_err(|error| failed(WHAT, template, error))?;
    let read = |(tag, build, assigned_at, created_at, finished_at): EventRow| {
        let event = || {
            Ok(TagEvent {
                tag,
                build: BuildId::parse(&build)?,
                assigned_at: timestamp(assigned_at)?,
                build_created_at: timestamp(created_at)?,
                build_finished_at: finished_at.map(timestamp).transpose()?,
            })
        };
        event().named(WHAT, template.as_str())
    };
    rows.into_iter().map(read).collect()
}
