//! Kept files at nodes: who names them.

use casemate_sql::{Tx, Value, query_scalar, sql};
use casemate_types::SnapshotId;

use super::failed;
use crate::StoreError;
use crate::error::Cause;
use crate::rows::Named;

/// Those of `files` that neither a snapshot nor a cached layer names (any more), each once.
pub(super) async fn unnamed(tx: &mut Tx, files: &[String]) -> Result<Vec<SnapshotId>, StoreError> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<String> = query_scalar(sql!(
        "SELECT DISTINCT a.value FROM ",
        either("json_each($1) a", "unnest($1) AS a (value)"),
        " \
         WHERE NOT EXISTS (SELECT 1 FROM snapshots s WHERE s.files = a.value) \
         AND NOT EXISTS (SELECT 1 FROM cached_layers c WHERE c.files = a.value)"
    ))
    .bind(Value::texts(files))
    .fetch_all(tx)
    .await
    .map_err(|error| failed("table", "snapshots", error))?;
    read(&found)
}

/// Ids as they are kept.
pub(super) fn read(files: &[String]) -> Result<Vec<SnapshotId>, StoreError> {
    let parse = |text: &String| {
        SnapshotId::parse(text)
            .map_err(Cause::from)
            .named("snapshot", text)
    };
    files.iter().map(parse).collect()
}
