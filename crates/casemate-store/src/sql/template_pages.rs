//! Pages of templates and of their builds.

use casemate_sql::{Tx, Value, query_as, sql};
use std::collections::HashMap;

use casemate_types::{TeamId, TemplateId};

use super::templates::template_columns;
use super::{SqlStore, failed};
use crate::rows::{RecordRow, SummaryRow, micros};
use crate::{BuildRecord, CreatedCursor, StoreError, TemplateOrder, TemplateSummary};

/// Of [`RecordRow`], from `builds b`.
macro_rules! record_columns {
    () => {
        "b.id, b.template_id, b.status, b.failure, b.vcpus, b.memory_mib, b.disk_mib, \
         b.processes_max, b.disk_size_mib, b.envd_version, b.created_at, b.updated_at, \
         b.finished_at"
    };
}
pub(super) use record_columns;

/// Of [`SummaryRow`], from `templates t`.
macro_rules! summary_columns {
    () => {
        concat!(
            template_columns!(),
            ", t.updated_at, t.build_count, t.spawn_count, t.last_spawned_at, \
             (SELECT g.build_id FROM template_tags g JOIN builds b ON b.id = g.build_id \
              WHERE g.template_id = t.id AND g.tag = 'default' AND b.status = 'ready' \
              ORDER BY g.assigned_at DESC LIMIT 1) AS ready, \
             (SELECT b.status FROM template_tags g JOIN builds b ON b.id = g.build_id \
              WHERE g.template_id = t.id AND g.tag = 'default' \
              ORDER BY g.assigned_at DESC LIMIT 1) AS status"
        )
    };
}

/// `$1` the team, `$2` and `$3` the one before, `$4` how many.
macro_rules! page {
    ($after:literal, $order:literal) => {
        concat!(
            "SELECT ",
            summary_columns!(),
            " FROM templates t WHERE t.team_id = $1 AND t.source = 'template' AND t.deleted = 0 \
             AND (t.created_at, t.id) ",
            $after,
            " ($2, $3) ORDER BY t.created_at ",
            $order,
            ", t.id ",
            $order,
            " LIMIT $4"
        )
    };
}

const OLDEST_FIRST: &str = page!(">", "ASC");
const NEWEST_FIRST: &str = page!("<", "DESC");
const BUILDS: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM builds b WHERE b.template_id = $1 AND (b.created_at, b.id) < ($2, $3) \
     ORDER BY b.created_at DESC, b.id DESC LIMIT $4"
);

/// With the index that each goes along; for the test of their plans.
#[cfg(test)]
pub(super) const PAGES: [(&str, &str); 3] = [
    (OLDEST_FIRST, "templates_page"),
    (NEWEST_FIRST, "templates_page"),
    (BUILDS, "builds_page"),
];

/// See [`crate::Builds::template_page`].
pub(super) async fn templates(
    store: &SqlStore,
    team: &TeamId,
    order: TemplateOrder,
    after: Option<&CreatedCursor>,
    rows_max: u32,
) -> Result<Vec<TemplateSummary>, StoreError> {
    let refused = |error| failed("templates of team", team, error);
    // What lies before every row, and after.
    let (sql, edge) = match order {
        TemplateOrder::OldestFirst => (OLDEST_FIRST, i64::MIN),
        TemplateOrder::NewestFirst => (NEWEST_FIRST, i64::MAX),
    };
    // The parts of one answer are read at one moment.
    let mut tx = store.readers.snapshot().await.map_err(refused)?;
    let rows: Vec<SummaryRow> = query_as(sql)
        .bind(team.as_str())
        .bind(after.map_or(edge, |after| micros(after.created_at)))
        .bind(after.map_or("", |after| &after.id))
        .bind(i64::from(rows_max))
        .fetch_all(&mut tx)
        .await
        .map_err(refused)?;
    completed(tx, rows).await
}

/// See [`crate::Builds::template_summary`].
pub(super) async fn summary(
    store: &SqlStore,
    id: &TemplateId,
) -> Result<Option<TemplateSummary>, StoreError> {
    let refused = |error| failed("template", id, error);
    let mut tx = store.readers.snapshot().await.map_err(refused)?;
    let sql = concat!(
        "SELECT ",
        summary_columns!(),
        " FROM templates t WHERE t.id = $1 AND t.deleted = 0"
    );
    let rows: Vec<SummaryRow> = query_as(sql)
        .bind(id.as_str())
        .fetch_all(&mut tx)
        .await
        .map_err(refused)?;
    Ok(completed(tx, rows).await?.pop())
}

/// See [`crate::Builds::template_list_stock`].
pub(super) async fn stock(store: &SqlStore) -> Result<Vec<TemplateSummary>, StoreError> {
    let refused = |error| failed("table", "templates", error);
    let mut tx = store.readers.snapshot().await.map_err(refused)?;
    let sql = concat!(
        "SELECT ",
        summary_columns!(),
        " FROM templates t WHERE t.team_id IS NULL AND t.deleted = 0 \
         AND EXISTS (SELECT 1 FROM template_aliases p \
             WHERE p.template_id = t.id AND p.namespace = '') ORDER BY t.id"
    );
    let rows: Vec<SummaryRow> = query_as(sql).fetch_all(&mut tx).await.map_err(refused)?;
    completed(tx, rows).await
}

/// See [`crate::Builds::build_page`].
pub(super) async fn builds(
    store: &SqlStore,
    template: &TemplateId,
    after: Option<&CreatedCursor>,
    rows_max: u32,
) -> Result<Vec<BuildRecord>, StoreError> {
    let rows: Vec<RecordRow> = query_as(BUILDS)
        .bind(template.as_str())
        .bind(after.map_or(i64::MAX, |after| micros(after.created_at)))
        .bind(after.map_or("", |after| &after.id))
        .bind(i64::from(rows_max))
        .fetch_all(&store.readers)
        .await
        .map_err(|error| failed("builds of template", template, error))?;
    rows.into_iter().map(BuildRecord::try_from).collect()
}

/// Adds names and builds: two more statements, however many rows there are.
async fn completed(mut tx: Tx, rows: Vec<SummaryRow>) -> Result<Vec<TemplateSummary>, StoreError> {
    let refused = |error| failed("table", "templates", error);
    let ready: Vec<String> = rows.iter().filter_map(|row| row.ready.clone()).collect();
    let templates: Vec<TemplateSummary> = rows
        .into_iter()
        .map(TemplateSummary::try_from)
        .collect::<Result<_, _>>()?;
    let sql = sql!(
        "SELECT ",
        record_columns!(),
        " FROM builds b WHERE b.id",
        is_in("$1")
    );
    let records: Vec<RecordRow> = query_as(sql)
        .bind(Value::texts(ready))
        .fetch_all(&mut tx)
        .await
        .map_err(refused)?;
    let mut builds = HashMap::new();
    for row in records {
        let build = BuildRecord::try_from(row)?;
        builds.insert(build.template.clone(), build);
    }
    let ids: Vec<&str> = templates
        .iter()
        .map(|one| one.template.id.as_str())
        .collect();
    let aliases: Vec<(String, String, String)> = query_as(sql!(
        "SELECT template_id, namespace, alias FROM template_aliases \
         WHERE template_id",
        is_in("$1"),
        " ORDER BY namespace, alias"
    ))
    .bind(Value::texts(ids))
    .fetch_all(&mut tx)
    .await
    .map_err(refused)?;
    tx.done().await.map_err(refused)?;
    let mut names = HashMap::<String, Vec<(Option<String>, String)>>::new();
    for (template, namespace, alias) in aliases {
        let namespace = (!namespace.is_empty()).then_some(namespace);
        names.entry(template).or_default().push((namespace, alias));
    }
    let complete = |one: TemplateSummary| TemplateSummary {
        names: names.remove(one.template.id.as_str()).unwrap_or_default(),
        ready: builds.remove(&one.template.id),
        ..one
    };
    Ok(templates.into_iter().map(complete).collect())
}
