//! [`BuildCache`].

use async_trait::async_trait;
use casemate_sql::{On, Tx, Value, query, query_as, query_scalar, sql, transaction};
use casemate_types::{LayerId, TeamId, Timestamp};

use super::{SqlStore, built_bytes, failed, kept_files, trim};
use crate::build_cache::{NOTE_KEPT_FOR, USED_STEP};
use crate::error::Cause;
use crate::rows::{CachedLayerRow, Named, context_text, layers_text, micros, signed};
use crate::{
    BuildCache, BuiltBytes, CacheKey, CacheTrim, CachedLayer, Dropped, StoreError, Trimmed, Upload,
};

const LAYER: &str = "cached layer";
const UPLOAD: &str = "upload";

#[async_trait]
impl BuildCache for SqlStore {
    async fn layer_find(
        &self,
        team: &TeamId,
        key: &CacheKey,
        at: Timestamp,
    ) -> Result<Option<CachedLayer>, StoreError> {
        let row: Option<CachedLayerRow> = query_as(
            "SELECT key, layers, files, context, distribution, size_mib, used_at FROM cached_layers \
             WHERE team_id = $1 AND key = $2",
        )
        .bind(team.as_str())
        .bind(key.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(|error| failed(LAYER, key.as_str(), error))?;
        let Some(row) = row else {
            return Ok(None);
        };
        if is_worth_noting(row.used_at, at) {
            query(
                "UPDATE cached_layers SET used_at = $3 \
                 WHERE team_id = $1 AND key = $2 AND used_at < $3",
            )
            .bind(team.as_str())
            .bind(key.as_str())
            .bind(micros(at))
            .execute(self.notes())
            .await
            .map_err(|error| failed(LAYER, key.as_str(), error))?;
        }
        CachedLayer::try_from(row).map(Some)
    }

    async fn layer_put(
        &self,
        team: &TeamId,
        key: &CacheKey,
        layer: &CachedLayer,
        at: Timestamp,
    ) -> Result<Dropped, StoreError> {
        let refused = |error| failed(LAYER, key.as_str(), error);
        transaction!(self.durable, refused, async |tx| {
            let before: Vec<Option<String>> = query_scalar(
                "DELETE FROM cached_layers WHERE team_id = $1 AND key = $2 RETURNING files",
            )
            .bind(team.as_str())
            .bind(key.as_str())
            .fetch_all(&mut *tx)
            .await
            .map_err(refused)?;
            query(
                "INSERT INTO cached_layers \
                 (team_id, key, layers, files, context, distribution, used_at, size_mib) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(team.as_str())
            .bind(key.as_str())
            .bind(layers_text(&layer.layers))
            .bind(layer.files.as_ref().map(|files| files.as_str()))
            .bind(context_text(&layer.context))
            .bind(layer.distribution.word())
            .bind(micros(at))
            .bind(i64::from(layer.size_mib))
            .execute(&mut *tx)
            .await
            .map_err(refused)?;
            let dropped = dropped(tx, before).await?;
            Ok(dropped)
        })
    }

    async fn layer_forget(
        &self,
        team: &TeamId,
        key: &CacheKey,
        layer: &CachedLayer,
    ) -> Result<Dropped, StoreError> {
        let refused = |error| failed(LAYER, key.as_str(), error);
        transaction!(self.durable, refused, async |tx| {
            let gone: Vec<Option<String>> = query_scalar(
                "DELETE FROM cached_layers WHERE team_id = $1 AND key = $2 AND layers = $3 \
                 AND files IS NOT DISTINCT FROM $4 RETURNING files",
            )
            .bind(team.as_str())
            .bind(key.as_str())
            .bind(layers_text(&layer.layers))
            .bind(layer.files.as_ref().map(|files| files.as_str()))
            .fetch_all(&mut *tx)
            .await
            .map_err(refused)?;
            let dropped = dropped(tx, gone).await?;
            Ok(dropped)
        })
    }

    async fn layer_expire(&self, before: Timestamp, rows_max: u32) -> Result<Dropped, StoreError> {
        let refused = |error| failed("table", "cached_layers", error);
        transaction!(self.durable, refused, async |tx| {
            let mut gone: Vec<Option<String>> =
                query_scalar("DELETE FROM cached_layers WHERE used_at < $1 RETURNING files")
                    .bind(micros(before))
                    .fetch_all(&mut *tx)
                    .await
                    .map_err(refused)?;
            let beyond: Vec<Option<String>> = query_scalar(
                "DELETE FROM cached_layers WHERE (team_id, key) IN ( \
                 SELECT team_id, key FROM (SELECT team_id, key, ROW_NUMBER() OVER ( \
                     PARTITION BY team_id ORDER BY used_at DESC, key DESC) AS place \
                     FROM cached_layers) AS placed WHERE place > $1) RETURNING files",
            )
            .bind(i64::from(rows_max))
            .fetch_all(&mut *tx)
            .await
            .map_err(refused)?;
            gone.extend(beyond);
            let noted_before = before.checked_sub(NOTE_KEPT_FOR).unwrap_or(Timestamp::MIN);
            built_bytes::forget(tx, noted_before).await?;
            let dropped = dropped(tx, gone).await?;
            Ok(dropped)
        })
    }

    async fn built_note(
        &self,
        team: &TeamId,
        built: &BuiltBytes,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        built_bytes::note(self, team, built, at).await
    }

    async fn built_holds(&self, name: &str) -> Result<Option<u64>, StoreError> {
        built_bytes::holds(self, name).await
    }

    async fn built_needed(&self, team: &TeamId, layers: &[String]) -> Result<u64, StoreError> {
        built_bytes::needed(self, team, layers).await
    }

    async fn built_trim(&self, team: &TeamId, bytes_max: u64) -> Result<Dropped, StoreError> {
        let refused = |error| failed("built bytes of team", team, error);
        transaction!(self.durable, refused, async |tx| {
            let gone = built_bytes::trim(tx, team, bytes_max).await?;
            let dropped = dropped(tx, gone).await?;
            Ok(dropped)
        })
    }

    async fn layer_wanted(&self, layers: &[LayerId]) -> Result<Vec<LayerId>, StoreError> {
        wanted(&self.readers, layers).await
    }

    async fn cache_trim(&self, trim: &CacheTrim) -> Result<Trimmed, StoreError> {
        trim::trim(self, trim).await
    }

    async fn upload_find(
        &self,
        team: &TeamId,
        key: &CacheKey,
        at: Timestamp,
    ) -> Result<Option<Upload>, StoreError> {
        let refused = |error| failed(UPLOAD, key.as_str(), error);
        let row: Option<(String, i64, i64, Option<String>)> = query_as(
            "SELECT sha256, bytes, used_at, artifact FROM uploads WHERE team_id = $1 AND key = $2",
        )
        .bind(team.as_str())
        .bind(key.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(refused)?;
        let Some((sha256, bytes, used_at, artifact)) = row else {
            return Ok(None);
        };
        if is_worth_noting(used_at, at) {
            query(
                "UPDATE uploads SET used_at = $3 WHERE team_id = $1 AND key = $2 AND used_at < $3",
            )
            .bind(team.as_str())
            .bind(key.as_str())
            .bind(micros(at))
            .execute(self.notes())
            .await
            .map_err(refused)?;
        }
        let bytes = u64::try_from(bytes).map_err(Cause::from);
        let bytes = bytes.named(UPLOAD, key.as_str())?;
        Ok(Some(Upload {
            sha256,
            bytes,
            artifact,
        }))
    }

    async fn upload_put(
        &self,
        team: &TeamId,
        key: &CacheKey,
        upload: &Upload,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        put_upload(&self.durable, team, key, upload, at).await
    }

    async fn upload_put_within(
        &self,
        team: &TeamId,
        key: &CacheKey,
        upload: &Upload,
        at: Timestamp,
        bytes_max: u64,
    ) -> Result<bool, StoreError> {
        let refused = |error| failed(UPLOAD, key.as_str(), error);
        transaction!(self.durable, refused, async |tx| {
            let known: Option<String> = query_scalar(
                "SELECT sha256 FROM uploads WHERE team_id = $1 AND sha256 = $2 LIMIT 1",
            )
            .bind(team.as_str())
            .bind(&upload.sha256)
            .fetch_optional(&mut *tx)
            .await
            .map_err(refused)?;
            put_upload(&mut *tx, team, key, upload, at).await?;
            if known.is_none() && upload_bytes(&mut *tx, team).await? > bytes_max {
                tx.discard();
                return Ok(false);
            }
            Ok(true)
        })
    }

    async fn upload_expire(&self, before: Timestamp) -> Result<u64, StoreError> {
        let done = query("DELETE FROM uploads WHERE used_at < $1")
            .bind(micros(before))
            .execute(&self.durable)
            .await
            .map_err(|error| failed("table", "uploads", error))?;
        Ok(done)
    }

    async fn upload_wanted(
        &self,
        team: &TeamId,
        sha256: &[String],
    ) -> Result<Vec<String>, StoreError> {
        query_scalar(sql!(
            "SELECT DISTINCT sha256 FROM uploads \
             WHERE team_id = $1 AND sha256",
            is_in("$2")
        ))
        .bind(team.as_str())
        .bind(Value::texts(sha256))
        .fetch_all(&self.readers)
        .await
        .map_err(|error| failed("uploads of team", team, error))
    }

    async fn upload_bytes(&self, team: &TeamId) -> Result<u64, StoreError> {
        upload_bytes(&self.readers, team).await
    }
}

async fn put_upload(
    on: impl Into<On<'_>>,
    team: &TeamId,
    key: &CacheKey,
    upload: &Upload,
    at: Timestamp,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO uploads (team_id, key, sha256, bytes, used_at, artifact) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (team_id, key) DO UPDATE SET sha256 = excluded.sha256, \
         bytes = excluded.bytes, used_at = excluded.used_at, artifact = excluded.artifact",
    )
    .bind(team.as_str())
    .bind(key.as_str())
    .bind(&upload.sha256)
    .bind(signed(upload.bytes))
    .bind(micros(at))
    .bind(upload.artifact.as_deref())
    .execute(on)
    .await
    .map_err(|error| failed(UPLOAD, key.as_str(), error))?;
    Ok(())
}

async fn upload_bytes(on: impl Into<On<'_>>, team: &TeamId) -> Result<u64, StoreError> {
    let bytes: i64 = query_scalar(
        "SELECT CAST(COALESCE(SUM(one.bytes), 0) AS BIGINT) FROM ( \
             SELECT MAX(bytes) AS bytes FROM uploads WHERE team_id = $1 GROUP BY sha256) one",
    )
    .bind(team.as_str())
    .fetch_one(on)
    .await
    .map_err(|error| failed("uploads of team", team, error))?;
    let bytes = u64::try_from(bytes).map_err(Cause::from);
    bytes.named("uploads of team", team.as_str())
}

/// A look is not worth a write when the last one that was noted is recent.
fn is_worth_noting(used_at: i64, at: Timestamp) -> bool {
    let step = i64::try_from(USED_STEP.as_micros()).unwrap_or(i64::MAX);
    micros(at).saturating_sub(used_at) >= step
}

/// See [`BuildCache::layer_wanted`].
pub(super) async fn wanted(
    db: impl Into<On<'_>>,
    layers: &[LayerId],
) -> Result<Vec<LayerId>, StoreError> {
    let asked: Vec<&str> = layers.iter().map(LayerId::as_str).collect();
    // Builds of sandboxes that live are there, and they were ready when the sandboxes were made.
    let found: Vec<String> = query_scalar(sql!(
        "SELECT n.value FROM builds b, ",
        items("b.layers", "n"),
        " \
         WHERE b.status = 'ready' AND n.value",
        is_in("$1"),
        " \
         UNION \
         SELECT n.value FROM cached_layers c, ",
        items("c.layers", "n"),
        " \
         WHERE n.value",
        is_in("$1")
    ))
    .bind(Value::texts(asked))
    .fetch_all(db)
    .await
    .map_err(|error| failed("table", "builds", error))?;
    let read = |text: &String| {
        LayerId::parse(text)
            .map_err(Cause::from)
            .named("layer", text)
    };
    found.iter().map(read).collect()
}

async fn dropped(tx: &mut Tx, gone: Vec<Option<String>>) -> Result<Dropped, StoreError> {
    let rows = u64::try_from(gone.len()).unwrap_or(u64::MAX);
    let files: Vec<String> = gone.into_iter().flatten().collect();
    let files = kept_files::unnamed(tx, &files).await?;
    Ok(Dropped { rows, files })
}
