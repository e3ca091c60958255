//! Artifacts. The id of what is stored says which kind it is.

use casemate_types::{LayerId, Portable, SnapshotId, TeamId};

use super::{Misread, Named};
use crate::error::Cause;
use crate::{StoreError, StoredArtifact};

const WHAT: &str = "artifact";

#[derive(sqlx::FromRow)]
pub(crate) struct ArtifactRow {
    name: String,
    team_id: String,
    artifact: String,
    bytes: i64,
}

pub(crate) fn portable_name(what: &Portable) -> &str {
    match what {
        Portable::Snapshot(snapshot) => snapshot.as_str(),
        Portable::Layer(layer) => layer.as_str(),
    }
}

pub(crate) fn portable(name: &str) -> Result<Portable, Misread> {
    if let Ok(layer) = LayerId::parse(name) {
        return Ok(Portable::Layer(layer));
    }
    let snapshot = SnapshotId::parse(name).map_err(Cause::from)?;
    Ok(Portable::Snapshot(snapshot))
}

impl TryFrom<ArtifactRow> for StoredArtifact {
    type Error = StoreError;

    fn try_from(row: ArtifactRow) -> Result<Self, StoreError> {
        let team = TeamId::parse(&row.team_id).map_err(Cause::from);
        let bytes = u64::try_from(row.bytes).map_err(Cause::from);
        Ok(Self {
            what: portable(&row.name).named(WHAT, &row.name)?,
            team: team.named(WHAT, &row.name)?,
            artifact: row.artifact,
            bytes: bytes.named(WHAT, &row.name)?,
        })
    }
}
