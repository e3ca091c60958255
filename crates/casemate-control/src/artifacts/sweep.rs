//! What nobody needs in the bucket: rows first, then what they named, then what no row names.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use casemate_artifacts::{ArtifactError, ArtifactRef, Artifacts, Scope, SweepLimits};
use casemate_store::StoreError;
use casemate_types::{TeamId, chain};
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

impl SweepError {
    /// Whether it says nothing about what others have in the bucket.
    fn is_of_one_team(&self) -> bool {
        matches!(
            self,
            Self::Artifact(ArtifactError::Corrupt { .. } | ArtifactError::NotFound { .. })
        )
    }
}

/// Each scope is listed for it, which costs requests.
const SWEEP_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Where a team's could not be swept.
const SWEEP_RETRY: Duration = Duration::from_secs(3600);
/// After so many teams in a row that the bucket failed, it is the bucket: the others wait as well.
const FAILURES_MAX: u32 = 3;
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
        let mut round = Round::default();
        // By our teams: another installation may have its own in the bucket.
        for team in control.store.team_list().await? {
            if let Ok(scope) = scope_of(&team.id) {
                let swept = sweep_scope(control, bucket, &scope, &team.id).await;
                if round.note(&team.id, swept).is_break() {
                    break;
                }
            }
        }
        self.due = Instant::now()
            + match round.has_failed {
                false => SWEEP_EVERY,
                true => SWEEP_RETRY,
            };
        Ok(())
    }
}

/// What came of it so far.
#[derive(Default)]
struct Round {
    has_failed: bool,
    failed_in_a_row: u32,
}

impl Round {
    /// Whether the next team is swept: what is wrong with one team's part keeps nobody else's.
    fn note(&mut self, team: &TeamId, swept: Result<(), SweepError>) -> ControlFlow<()> {
        let Err(error) = swept else {
            self.failed_in_a_row = 0;
            return ControlFlow::Continue(());
        };
        tracing::warn!(
            team.id = %team, error = chain(&error),
            "could not remove from the bucket what team {team} does not need; trying again later"
        );
        self.has_failed = true;
        self.failed_in_a_row += u32::from(!error.is_of_one_team());
        match self.failed_in_a_row < FAILURES_MAX {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
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

#[cfg(test)]
mod tests {
    use casemate_artifacts::{Cause, Corruption, Digest, NotAManifest, Operation, What};

    use super::*;

    fn corrupt() -> ArtifactError {
        ArtifactError::Corrupt {
            what: What::Manifest(Digest::of(b"one")),
            why: Corruption::Manifest(NotAManifest::Magic),
        }
    }

    fn away() -> ArtifactError {
        ArtifactError::Unavailable {
            operation: Operation::List,
            what: What::Listing,
            cause: Cause::Connect("refused".into()),
        }
    }

    /// How many of six teams were begun with, and whether one failed.
    fn sweep(fails: impl Fn(usize) -> Option<ArtifactError>) -> (usize, bool) {
        let team = "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162".parse().unwrap();
        let (mut round, mut begun) = (Round::default(), 0);
        for at in 0..6 {
            begun += 1;
            let swept = fails(at).map_or(Ok(()), |error| Err(error.into()));
            if round.note(&team, swept).is_break() {
                break;
            }
        }
        (begun, round.has_failed)
    }

    #[test]
    fn what_is_wrong_with_one_team_keeps_nobody_elses() {
        assert_eq!(sweep(|_| None), (6, false));
        assert_eq!(sweep(|at| (at == 1).then(corrupt)), (6, true));
        assert_eq!(sweep(|_| Some(corrupt())), (6, true));
        assert_eq!(sweep(|at| (at % 3 != 2).then(away)), (6, true));
    }

    #[test]
    fn a_bucket_that_is_away_is_not_asked_for_each_team() {
        assert_eq!(sweep(|_| Some(away())), (3, true));
    }
}
