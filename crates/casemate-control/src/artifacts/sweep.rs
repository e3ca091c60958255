//! What nobody needs in the bucket: rows first, then what they named, then what no row names.

use std::collections::HashSet;
use std::time::Duration;

use casemate_artifacts::{ArtifactError, ArtifactRef, Artifacts, Scope, SweepLimits};
use casemate_store::StoreError;
use casemate_types::TeamId;
use tokio::time::Instant;

use crate::Control;

/// A manifest that no row names may be of a put whose row is on its way: it is left for so long.
const ROW_ON_ITS_WAY: Duration = Duration::from_secs(24 * 3600);
const ROWS_MAX: u32 = 100;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// Each scope is listed for it, which costs requests.
const SWEEP_EVERY: Duration = Duration::from_secs(6 * 3600);
/// After a start, so that one that is often begun anew sweeps as well.
const SWEEP_FIRST: Duration = Duration::from_secs(1800);

/// When scopes are swept next.
pub(crate) struct Sweeper {
    due: Instant,
}

impl Sweeper {
    pub(crate) fn new() -> Self {
        Self {
            due: Instant::now() + SWEEP_FIRST,
        }
    }

    /// Each time the janitor comes by.
    pub(crate) async fn sweep(&mut self, control: &Control) -> Result<(), SweepError> {
        let Some(bucket) = control.bucket() else {
            return Ok(());
        };
        drop_unneeded(control, bucket).await?;
        if Instant::now() < self.due {
            return Ok(());
        }
        self.due = Instant::now() + SWEEP_EVERY;
        // By our teams: another installation may have its own in the bucket.
        for team in control.store.team_list().await? {
            if let Ok(scope) = scope_of(&team.id) {
                sweep_scope(control, bucket, &scope, &team.id).await?;
            }
        }
        Ok(())
    }
}

/// Of templates and snapshots that are gone.
async fn drop_unneeded(control: &Control, bucket: &Artifacts) -> Result<(), SweepError> {
    loop {
        let unneeded = control.store.artifact_unneeded(ROWS_MAX).await?;
        for row in &unneeded {
            if !control.store.artifact_forget(row).await? {
                // A pause needs it again, and has stored it anew.
                continue;
            }
            // A reference that cannot be read names nothing that could be removed.
            if let (Ok(scope), Ok(artifact)) = (scope_of(&row.team), row.artifact.parse()) {
                bucket.remove(&scope, &artifact).await?;
            }
            tracing::info!(
                bytes = row.bytes,
                "removed {} from the bucket, which nothing needs",
                row.what
            );
        }
        if unneeded.len() < ROWS_MAX as usize {
            return Ok(());
        }
    }
}

fn scope_of(team: &TeamId) -> Result<Scope, casemate_artifacts::NotAScope> {
    team.as_str().parse()
}

async fn sweep_scope(
    control: &Control,
    bucket: &Artifacts,
    scope: &Scope,
    team: &TeamId,
) -> Result<(), SweepError> {
    // Before the rows are read: what gets a row meanwhile is old in neither.
    let manifests = bucket.manifests(scope).await?;
    let references = control.store.artifact_references(team).await?;
    let named: HashSet<_> = references
        .iter()
        .filter_map(|text| text.parse::<ArtifactRef>().ok())
        .map(|artifact| artifact.manifest)
        .collect();
    for entry in manifests {
        if entry.age > ROW_ON_ITS_WAY && !named.contains(&entry.manifest) {
            let nobodys = ArtifactRef {
                manifest: entry.manifest,
                bytes: 0,
            };
            bucket.remove(scope, &nobodys).await?;
        }
    }
    bucket.sweep(scope, SweepLimits::default()).await?;
    Ok(())
}
