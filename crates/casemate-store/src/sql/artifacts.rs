//! [`Artifacts`].

use async_trait::async_trait;
use casemate_sql::{Query, Value, query, query_as, query_scalar, sql};
use casemate_types::{Portable, TeamId};

use super::{SqlStore, failed};
use crate::error::Cause;
use crate::rows::{ArtifactRow, Named, portable, portable_name};
use crate::{Artifacts, StoreError, StoredArtifact};

const WHAT: &str = "artifact";

fn names(whats: &[Portable]) -> Value {
    Value::texts(whats.iter().map(portable_name).collect::<Vec<_>>())
}

/// In place of what is noted under the name: whoever is about to forget that finds another.
pub(super) fn replace_artifact(artifact: &StoredArtifact) -> Query {
    let query = query(
        "INSERT INTO artifacts (name, team_id, artifact, bytes) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO UPDATE SET team_id = excluded.team_id, \
         artifact = excluded.artifact, bytes = excluded.bytes",
    );
    bind(query, artifact)
}

fn bind(query: Query, artifact: &StoredArtifact) -> Query {
    query
        .bind(portable_name(&artifact.what))
        .bind(artifact.team.as_str())
        .bind(&artifact.artifact)
        .bind(i64::try_from(artifact.bytes).unwrap_or(i64::MAX))
}

#[async_trait]
impl Artifacts for SqlStore {
    async fn artifact_due(
        &self,
        whats: &[Portable],
    ) -> Result<Vec<(Portable, TeamId)>, StoreError> {
        let rows: Vec<(String, String)> = query_as(sql!(
            "SELECT name, MIN(team_id) FROM (\
             SELECT n.value AS name, t.team_id AS team_id \
             FROM builds b JOIN templates t ON t.id = b.template_id, ",
            items("b.layers", "n"),
            " WHERE b.status = 'ready' AND t.team_id IS NOT NULL AND n.value",
            is_in("$1"),
            " UNION ALL \
             SELECT s.files, t.team_id FROM snapshots s \
             JOIN builds b ON b.id = s.build_id JOIN templates t ON t.id = b.template_id \
             WHERE t.team_id IS NOT NULL AND s.files",
            is_in("$1"),
            ") needed \
             WHERE NOT EXISTS (SELECT 1 FROM artifacts a WHERE a.name = needed.name) \
             GROUP BY name"
        ))
        .bind(names(whats))
        .fetch_all(&self.readers)
        .await
        .map_err(|error| failed("table", "artifacts", error))?;
        let read = |(name, team): (String, String)| {
            let team = TeamId::parse(&team).map_err(Cause::from);
            Ok((
                portable(&name).named(WHAT, &name)?,
                team.named(WHAT, &name)?,
            ))
        };
        rows.into_iter().map(read).collect()
    }

    async fn artifact_put(&self, artifact: &StoredArtifact) -> Result<bool, StoreError> {
        let name = portable_name(&artifact.what);
        let written = query(
            "INSERT INTO artifacts (name, team_id, artifact, bytes) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (name) DO NOTHING",
        );
        let written = bind(written, artifact)
            .execute(&self.durable)
            .await
            .map_err(|error| failed(WHAT, name, error))?;
        Ok(written > 0)
    }

    async fn artifact_find(&self, whats: &[Portable]) -> Result<Vec<StoredArtifact>, StoreError> {
        let rows: Vec<ArtifactRow> = query_as(sql!(
            "SELECT name, team_id, artifact, bytes FROM artifacts WHERE name",
            is_in("$1")
        ))
        .bind(names(whats))
        .fetch_all(&self.readers)
        .await
        .map_err(|error| failed("table", "artifacts", error))?;
        rows.into_iter().map(StoredArtifact::try_from).collect()
    }

    async fn artifact_unneeded(&self, rows_max: u32) -> Result<Vec<StoredArtifact>, StoreError> {
        let rows: Vec<ArtifactRow> = query_as(sql!(
            "SELECT name, team_id, artifact, bytes FROM artifacts a \
             WHERE a.name NOT IN (SELECT n.value FROM builds b, ",
            items("b.layers", "n"),
            " WHERE b.status = 'ready') \
             AND NOT EXISTS (SELECT 1 FROM snapshots s WHERE s.files = a.name) \
             AND NOT EXISTS (SELECT 1 FROM sandboxes p WHERE p.stored_files = a.name) \
             ORDER BY a.name LIMIT $1"
        ))
        .bind(i64::from(rows_max))
        .fetch_all(&self.readers)
        .await
        .map_err(|error| failed("table", "artifacts", error))?;
        rows.into_iter().map(StoredArtifact::try_from).collect()
    }

    async fn artifact_forget(&self, artifact: &StoredArtifact) -> Result<bool, StoreError> {
        let name = portable_name(&artifact.what);
        let gone = query("DELETE FROM artifacts WHERE name = $1 AND artifact = $2")
            .bind(name)
            .bind(&artifact.artifact)
            .execute(&self.durable)
            .await
            .map_err(|error| failed(WHAT, name, error))?;
        Ok(gone > 0)
    }

    async fn artifact_references(&self, team: &TeamId) -> Result<Vec<String>, StoreError> {
        query_scalar(
            "SELECT artifact FROM artifacts WHERE team_id = $1 \
             UNION SELECT artifact FROM uploads WHERE team_id = $1 AND artifact IS NOT NULL",
        )
        .bind(team.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(|error| failed("table", "artifacts", error))
    }
}
