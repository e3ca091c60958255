//! What builds of a team take at nodes, and what of it may go.

use casemate_sql::{Sql, Tx, Value, query, query_as, query_scalar, sql};
use std::collections::{BTreeSet, HashMap};

use casemate_types::{TeamId, Timestamp};

use super::{SqlStore, failed};
use crate::build_cache::CONTEXTS_BYTES_MAX;
use crate::error::Cause;
use crate::rows::{Named, layers_of, micros, signed};
use crate::{BuiltBytes, StoreError};

/// Its words within others.
macro_rules! needed {
    ([$($before:tt)*] $($after:literal)?) => {
        sql!(
            $($before)* "SELECT n.value FROM builds b JOIN templates t ON t.id = b.template_id, ",
            items("b.layers", "n"),
            " WHERE t.team_id = $1 AND b.status = 'ready'" $(, $after)?
        )
    };
}

const TABLE: &str = "built_bytes";

/// Layers that builds of the team need, deleted templates among them while sandboxes run from them.
const NEEDED: Sql = needed!([]);

/// `$1` the team, `$2` names beside those.
const NEEDED_BYTES: Sql = needed!(
    ["SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM built_bytes WHERE team_id = $1 \
     AND (name", is_in("$2"), " OR name IN (",] "))"
);

pub(super) async fn note(
    store: &SqlStore,
    team: &TeamId,
    built: &BuiltBytes,
    at: Timestamp,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO built_bytes (name, team_id, bytes, holds, noted_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET \
         bytes = excluded.bytes, holds = excluded.holds, noted_at = excluded.noted_at",
    )
    .bind(&built.name)
    .bind(team.as_str())
    .bind(signed(built.bytes))
    .bind(signed(built.holds))
    .bind(micros(at))
    .execute(store.fast())
    .await
    .map_err(|error| failed(TABLE, &built.name, error))?;
    Ok(())
}

pub(super) async fn holds(store: &SqlStore, name: &str) -> Result<Option<u64>, StoreError> {
    let refused = |error| failed(TABLE, name, error);
    let holds: Option<i64> = query_scalar("SELECT holds FROM built_bytes WHERE name = $1")
        .bind(name)
        .fetch_optional(&store.readers)
        .await
        .map_err(refused)?;
    let read = |bytes| u64::try_from(bytes).map_err(Cause::from).named(TABLE, name);
    holds.map(read).transpose()
}

pub(super) async fn needed(
    store: &SqlStore,
    team: &TeamId,
    layers: &[String],
) -> Result<u64, StoreError> {
    let bytes: i64 = query_scalar(NEEDED_BYTES)
        .bind(team.as_str())
        .bind(Value::texts(layers))
        .fetch_one(&store.readers)
        .await
        .map_err(|error| failed("built bytes of team", team, error))?;
    let bytes = u64::try_from(bytes).map_err(Cause::from);
    bytes.named("built bytes of team", team.as_str())
}

/// Removes rows of cached layers, the least recently used first, until what is left takes `bytes_max`
/// at nodes, and its contexts [`CONTEXTS_BYTES_MAX`]; the kept files that they named.
pub(super) async fn trim(
    tx: &mut Tx,
    team: &TeamId,
    bytes_max: u64,
) -> Result<Vec<Option<String>>, StoreError> {
    let mut gone = trim_contexts(tx, team).await?;
    gone.extend(trim_bytes(tx, team, bytes_max).await?);
    Ok(gone)
}

async fn trim_contexts(tx: &mut Tx, team: &TeamId) -> Result<Vec<Option<String>>, StoreError> {
    query_scalar(
        "DELETE FROM cached_layers WHERE team_id = $1 AND key IN ( \
             SELECT key FROM (SELECT key, SUM(octet_length(context)) OVER ( \
                 ORDER BY used_at DESC, key DESC) AS bytes \
                 FROM cached_layers WHERE team_id = $1) AS summed WHERE bytes > $2) \
         RETURNING files",
    )
    .bind(team.as_str())
    .bind(signed(CONTEXTS_BYTES_MAX))
    .fetch_all(tx)
    .await
    .map_err(|error| failed("cache of team", team, error))
}

async fn trim_bytes(
    tx: &mut Tx,
    team: &TeamId,
    bytes_max: u64,
) -> Result<Vec<Option<String>>, StoreError> {
    let refused = |error| failed("built bytes of team", team, error);
    // With what nobody names any more: there may be less, and never more.
    let most: i64 = query_scalar(
        "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM built_bytes WHERE team_id = $1",
    )
    .bind(team.as_str())
    .fetch_one(&mut *tx)
    .await
    .map_err(refused)?;
    if most <= signed(bytes_max) {
        return Ok(Vec::new());
    }
    let bytes: Vec<(String, i64)> =
        query_as("SELECT name, bytes FROM built_bytes WHERE team_id = $1")
            .bind(team.as_str())
            .fetch_all(&mut *tx)
            .await
            .map_err(refused)?;
    let needed: Vec<String> = query_scalar(NEEDED)
        .bind(team.as_str())
        .fetch_all(&mut *tx)
        .await
        .map_err(refused)?;
    let cached: Vec<(String, String, Option<String>)> = query_as(
        "SELECT key, layers, files FROM cached_layers WHERE team_id = $1 ORDER BY used_at, key",
    )
    .bind(team.as_str())
    .fetch_all(&mut *tx)
    .await
    .map_err(refused)?;
    let mut rows = Vec::new();
    for (key, layers, files) in cached {
        let layers = layers_of(&layers).named("cached layer", &key)?;
        let names = layers.into_iter().chain(files).collect();
        rows.push(Row { key, names });
    }
    let bytes = bytes.into_iter();
    let bytes = bytes.map(|(name, bytes)| (name, u64::try_from(bytes).unwrap_or(0)));
    let gone = beyond(
        &rows,
        &needed.into_iter().collect(),
        &bytes.collect(),
        bytes_max,
    );
    query_scalar(sql!(
        "DELETE FROM cached_layers WHERE team_id = $1 \
         AND key",
        is_in("$2"),
        " RETURNING files"
    ))
    .bind(team.as_str())
    .bind(Value::texts(gone))
    .fetch_all(tx)
    .await
    .map_err(refused)
}

/// Forgets what nobody names and was noted before `before`: its row may come a moment after it.
pub(super) async fn forget(tx: &mut Tx, before: Timestamp) -> Result<(), StoreError> {
    query(sql!(
        "DELETE FROM built_bytes WHERE noted_at < $1 \
         AND name NOT IN (SELECT n.value FROM builds b, ",
        items("b.layers", "n"),
        ") \
         AND name NOT IN (SELECT n.value FROM cached_layers c, ",
        items("c.layers", "n"),
        ") \
         AND name NOT IN (SELECT files FROM cached_layers WHERE files IS NOT NULL)"
    ))
    .bind(micros(before))
    .execute(tx)
    .await
    .map_err(|error| failed("table", TABLE, error))?;
    Ok(())
}

/// A cached layer, and what it names at nodes.
struct Row {
    key: String,
    names: BTreeSet<String>,
}

/// Keys of those rows that go, of which the first was used least recently. One of which nothing would
/// come back, not even with others that went before it, stays.
fn beyond(
    rows: &[Row],
    needed: &BTreeSet<String>,
    bytes: &HashMap<String, u64>,
    bytes_max: u64,
) -> Vec<String> {
    let counts = |name: &&String| bytes.contains_key(*name);
    let mut named: HashMap<&String, usize> = HashMap::new();
    for name in rows.iter().flat_map(|row| &row.names).filter(counts) {
        *named.entry(name).or_default() += 1;
    }
    let kept = named.keys().copied().chain(needed.iter().filter(counts));
    let kept: BTreeSet<&String> = kept.collect();
    let mut left: u64 = kept.iter().map(|name| bytes[*name]).sum();
    let mut gone = Vec::new();
    for row in rows {
        if left <= bytes_max {
            break;
        }
        let own = row.names.iter().filter(counts);
        let own: Vec<_> = own.filter(|name| !needed.contains(*name)).collect();
        if own.iter().all(|name| bytes[*name] == 0) {
            continue;
        }
        for name in own {
            let count = named.entry(name).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                left = left.saturating_sub(bytes[name]);
            }
        }
        gone.push(row.key.clone());
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|&name| name.to_owned()).collect()
    }

    #[track_caller]
    fn check(rows: &[(&str, &[&str])], needed: &[&str], bytes_max: u64, expected: &[&str]) {
        let rows = rows.iter().map(|(key, all)| Row {
            key: (*key).to_owned(),
            names: names(all),
        });
        let rows: Vec<_> = rows.collect();
        let bytes = [("t1", 10), ("t2", 10), ("b1", 5), ("b2", 5), ("b0", 0)];
        let bytes = bytes.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        assert_eq!(beyond(&rows, &names(needed), &bytes, bytes_max), expected);
    }

    #[test]
    fn the_least_recently_used_go_until_the_rest_fits() {
        let rows: &[(&str, &[&str])] = &[
            ("old", &["base", "b1"]),
            ("middle", &["base", "b2"]),
            ("new", &["base", "t1"]),
        ];
        check(rows, &[], 20, &[]);
        check(rows, &[], 19, &["old"]);
        check(rows, &[], 10, &["old", "middle"]);
        check(rows, &[], 0, &["old", "middle", "new"]);
    }

    #[test]
    fn what_templates_need_stays_and_counts() {
        let rows: &[(&str, &[&str])] = &[("end", &["t1"]), ("step", &["b1"])];
        check(rows, &["t1"], 14, &["step"]);
        check(rows, &["t1"], 5, &["step"]);
        check(rows, &["t1", "t2"], 25, &[]);
        check(rows, &["t1", "t2"], 24, &["step"]);
    }

    #[test]
    fn what_several_name_comes_back_with_the_last_of_them() {
        let rows: &[(&str, &[&str])] = &[
            ("step", &["b1"]),
            ("nothing", &["b0"]),
            ("env", &["b1"]),
            ("other", &["b2"]),
        ];
        check(rows, &[], 5, &["step", "env"]);
        check(rows, &[], 9, &["step", "env"]);
        check(rows, &[], 10, &[]);
    }
}
