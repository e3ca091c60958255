//! Builds that nothing refers to any more, and what a team's builds left for the next ones, as a team
//! that wants its room back removes them.

use casemate_sql::{Sql, Tx, Value, query, query_as, query_scalar, sql, transaction};
use std::collections::{BTreeMap, BTreeSet};

use casemate_types::{LayerId, TeamId, Timestamp};

use super::{SqlStore, build_cache, failed, kept_files};
use crate::builds::FORGET_BUILDS_MAX;
use crate::rows::{self, Named, micros};
use crate::{CacheTrim, StoreError, TrimMode, Trimmed};

/// `$1` since when, `$2` the team or `NULL` for all, `$3` how many. A tag
/// leads to the last one of its builds that is ready: it left this one when that came.
const UNUSED: &str = "\
    SELECT b.id FROM templates t JOIN builds b ON b.template_id = t.id \
    WHERE t.source = 'template' AND t.deleted = 0 AND t.team_id IS NOT NULL \
     AND ($2 IS NULL OR t.team_id = $2) AND b.status = 'ready' AND b.finished_at < $1 \
     AND EXISTS (SELECT 1 FROM builds n WHERE n.template_id = b.template_id \
         AND n.status = 'ready' \
         AND (n.created_at > b.created_at OR (n.created_at = b.created_at AND n.id > b.id))) \
     AND NOT EXISTS (SELECT 1 FROM sandboxes x \
         WHERE x.template_id = b.template_id AND x.build_id = b.id AND x.state <> 'dead') \
     AND NOT EXISTS (SELECT 1 FROM template_tags g WHERE g.build_id = b.id AND NOT EXISTS ( \
         SELECT 1 FROM template_tags y JOIN builds r ON r.id = y.build_id \
         WHERE y.template_id = g.template_id AND y.tag = g.tag \
          AND y.assigned_at > g.assigned_at AND y.assigned_at < $1 AND r.status = 'ready')) \
    LIMIT $3";

/// `$1` the team, `$2` since when, `$3` and `$4` files and layers that are spared.
const CACHED: Sql = sql!(
    "\
     DELETE FROM cached_layers WHERE team_id = $1 AND used_at < $2 \
      AND (files IS NULL OR files",
    not_in("$3"),
    ") \
     AND (files IS NOT NULL OR NOT EXISTS ( \
         SELECT 1 FROM ",
    items("cached_layers.layers", "h"),
    " \
         WHERE h.value",
    is_in("$4"),
    ")) \
     AND ((files IS NOT NULL AND files NOT IN (SELECT s.files FROM snapshots s)) \
         OR EXISTS (SELECT 1 FROM ",
    items("cached_layers.layers", "n"),
    " \
             WHERE n.value NOT IN (SELECT m.value FROM builds b, ",
    items("b.layers", "m"),
    " \
                  WHERE b.status = 'ready'))) \
     RETURNING layers, files"
);

/// See [`crate::Builds::build_forget_unused`].
pub(super) async fn forget_unused(store: &SqlStore, before: Timestamp) -> Result<u64, StoreError> {
    let refused = |error| failed("table", "builds", error);
    // Almost always there are none, and then no writer is needed.
    let some: Option<String> = query_scalar(UNUSED)
        .bind(micros(before))
        .bind(None::<String>)
        .bind(1_i64)
        .fetch_optional(&store.readers)
        .await
        .map_err(refused)?;
    if some.is_none() {
        return Ok(0);
    }
    transaction!(store.durable, refused, async |tx| {
        let gone = drop_unused(tx, before, None, i64::from(FORGET_BUILDS_MAX)).await?;
        Ok(gone.rows)
    })
}

/// See [`crate::BuildCache::cache_trim`].
pub(super) async fn trim(store: &SqlStore, trim: &CacheTrim) -> Result<Trimmed, StoreError> {
    let refused = |error| failed("cache of team", &trim.team, error);
    transaction!(store.durable, refused, async |tx| {
        // Builds first: what they alone kept in use is free then.
        let builds = drop_unused(tx, trim.before, Some(&trim.team), i64::MAX).await?;
        let cached = drop_cached(tx, trim).await?;
        let (uploads, upload_bytes) = drop_uploads(tx, trim).await?;
        let named: BTreeSet<LayerId> = builds.layers.into_iter().chain(cached.layers).collect();
        let named: Vec<LayerId> = named.into_iter().collect();
        let wanted = build_cache::wanted(&mut *tx, &named).await?;
        let is_free =
            |layer: &LayerId| !wanted.contains(layer) && !trim.spared_layers.contains(layer);
        let trimmed = Trimmed {
            builds: builds.rows,
            steps: cached.rows,
            files: kept_files::unnamed(tx, &cached.files).await?,
            layers: named.into_iter().filter(is_free).collect(),
            uploads,
            upload_bytes,
        };
        match trim.mode {
            TrimMode::Rehearse => tx.discard(),
            TrimMode::CarryOut => {}
        }
        Ok(trimmed)
    })
}

/// Rows that are gone, and what they named.
#[derive(Default)]
struct Gone {
    rows: u64,
    files: Vec<String>,
    layers: Vec<LayerId>,
}

async fn drop_unused(
    tx: &mut Tx,
    before: Timestamp,
    team: Option<&TeamId>,
    rows_max: i64,
) -> Result<Gone, StoreError> {
    let refused = |error| failed("table", "builds", error);
    let unused: Vec<String> = query_scalar(UNUSED)
        .bind(micros(before))
        .bind(team.map(TeamId::as_str))
        .bind(rows_max)
        .fetch_all(&mut *tx)
        .await
        .map_err(refused)?;
    let unused = Value::texts(unused);
    query(sql!(
        "DELETE FROM template_tags WHERE build_id",
        is_in("$1")
    ))
    .bind(&unused)
    .execute(&mut *tx)
    .await
    .map_err(refused)?;
    let layers: Vec<String> = query_scalar(sql!(
        "DELETE FROM builds WHERE id",
        is_in("$1"),
        " RETURNING layers"
    ))
    .bind(&unused)
    .fetch_all(&mut *tx)
    .await
    .map_err(refused)?;
    let mut gone = Gone::default();
    for text in layers {
        gone.note(&text, None)?;
    }
    Ok(gone)
}

async fn drop_cached(tx: &mut Tx, trim: &CacheTrim) -> Result<Gone, StoreError> {
    let files: Vec<&str> = trim.spared_files.iter().map(|one| one.as_str()).collect();
    let layers: Vec<&str> = trim.spared_layers.iter().map(LayerId::as_str).collect();
    let rows: Vec<(String, Option<String>)> = query_as(CACHED)
        .bind(trim.team.as_str())
        .bind(micros(trim.before))
        .bind(Value::texts(files))
        .bind(Value::texts(layers))
        .fetch_all(tx)
        .await
        .map_err(|error| failed("cache of team", &trim.team, error))?;
    let mut gone = Gone::default();
    for (layers, files) in rows {
        gone.note(&layers, files)?;
    }
    Ok(gone)
}

/// How many, and the bytes of contents that none has any more.
async fn drop_uploads(tx: &mut Tx, trim: &CacheTrim) -> Result<(u64, u64), StoreError> {
    let refused = |error| failed("uploads of team", &trim.team, error);
    let rows: Vec<(String, i64)> =
        query_as("DELETE FROM uploads WHERE team_id = $1 AND used_at < $2 RETURNING sha256, bytes")
            .bind(trim.team.as_str())
            .bind(micros(trim.uploads_before))
            .fetch_all(&mut *tx)
            .await
            .map_err(refused)?;
    let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let contents: BTreeMap<String, i64> = rows.into_iter().collect();
    let names: Vec<&str> = contents.keys().map(String::as_str).collect();
    let left: Vec<String> = query_scalar(sql!(
        "SELECT DISTINCT sha256 FROM uploads \
         WHERE team_id = $1 AND sha256",
        is_in("$2")
    ))
    .bind(trim.team.as_str())
    .bind(Value::texts(names))
    .fetch_all(tx)
    .await
    .map_err(refused)?;
    let free = contents.iter().filter(|(name, _)| !left.contains(name));
    let bytes = free.map(|(_, bytes)| u64::try_from(*bytes).unwrap_or(0));
    Ok((count, bytes.sum()))
}

impl Gone {
    /// One row more. Layers that are not sealed ones are the node's own, and never go.
    fn note(&mut self, layers: &str, files: Option<String>) -> Result<(), StoreError> {
        let names = rows::layers(layers);
        let names = names.named("layers", layers)?;
        self.rows += 1;
        self.files.extend(files);
        let sealed = names.iter().filter_map(|name| LayerId::parse(name).ok());
        self.layers.extend(sealed);
        Ok(())
    }
}
