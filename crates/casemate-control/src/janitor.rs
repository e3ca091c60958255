//! Removes what nobody needs any more: old rows, builds whose recipe never came, uploads, and paused
//! sandboxes and snapshots that were kept for as long as their team keeps such (decision 21).

use std::sync::Arc;
use std::time::Duration;

use casemate_store::StoreError;
use casemate_store::builds::FORGET_BUILDS_MAX;
use casemate_store::sandboxes::FORGET_ROWS_MAX;
use casemate_types::{BuildFailure, EndReason, TeamId, Timestamp, chain, steady};

use crate::Control;
use crate::artifacts::sweep::Sweeper;

const ROUND: Duration = Duration::from_secs(600);
/// Idempotency keys are kept this long (`api.md` 3.0), and so are rows of dead sandboxes: a node
/// that was away is still told to end what it runs.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long a build waits for its recipe (`templates.md` 1.5).
const RECIPE_WAIT: Duration = Duration::from_secs(40 * 60);
/// Builds that failed are shown this long.
const FAILED_KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// For ever.
pub(crate) async fn run(control: Arc<Control>) {
    let mut round = tokio::time::interval(ROUND);
    let mut bucket = Sweeper::new();
    loop {
        round.tick().await;
        if let Err(error) = control.sweep_uploads().await {
            tracing::warn!(
                error = chain(&error),
                "could not remove old uploads; trying again later"
            );
        }
        // All else is done once for all servers.
        control.until_janitor().await;
        if let Err(error) = end_retention(&control).await {
            tracing::warn!(
                error = chain(&error),
                "could not look for what was kept for long enough; trying again later"
            );
        }
        if let Err(error) = end_waiting(&control).await {
            tracing::warn!(
                error = chain(&error),
                "could not end builds that wait for too long; trying again later"
            );
        }
        if let Err(error) = end_unused(&control).await {
            tracing::warn!(
                error = chain(&error),
                "could not forget builds that nothing refers to; trying again later"
            );
        }
        if let Err(error) = end_cached_layers(&control).await {
            tracing::warn!(
                error = chain(&error),
                "could not forget old results of steps; trying again later"
            );
        }
        if let Err(error) = tidy(&control).await {
            tracing::warn!(
                error = chain(&error),
                "could not remove old rows; trying again later"
            );
        }
        if let Err(error) = bucket.sweep(&control).await {
            tracing::warn!(
                error = chain(&error),
                "could not remove from the bucket what nobody needs; trying again later"
            );
        }
        if let Err(error) = control.forget_build_logs().await {
            tracing::warn!(
                error = chain(&error),
                "could not remove logs of builds that are gone; trying again later"
            );
        }
    }
}

/// Their files go with the next look for what nobody wants.
async fn end_cached_layers(control: &Control) -> Result<(), StoreError> {
    let builds = &control.config.builds;
    let before = Timestamp::now().checked_sub(builds.cache);
    let before = before.unwrap_or(Timestamp::MIN);
    let dropped = control
        .store
        .layer_expire(before, builds.cache_steps_max)
        .await?;
    if dropped.rows > 0 {
        tracing::info!(
            layers = dropped.rows,
            "forgot results of steps that were not used"
        );
    }
    for team in control.store.team_list().await? {
        control.bound_builds(&team.id).await?;
    }
    Ok(())
}

impl Control {
    /// Forgets results of steps beyond what a team's builds may take, and says whether there were any.
    pub(crate) async fn bound_builds(&self, team: &TeamId) -> Result<bool, StoreError> {
        let bytes_max = self.config.builds.team_bytes_max;
        let dropped = self.store.built_trim(team, bytes_max).await?;
        if dropped.rows > 0 {
            tracing::info!(
                team.id = %team, layers = dropped.rows,
                "forgot results of steps, because builds of team {team} take more than they may"
            );
        }
        Ok(dropped.rows > 0)
    }
}

/// Their layers go with the next look for what nobody wants.
async fn end_unused(control: &Control) -> Result<(), StoreError> {
    let Some(kept) = control.config.builds.unused else {
        return Ok(());
    };
    let before = Timestamp::now().checked_sub(kept);
    let before = before.unwrap_or(Timestamp::MIN);
    let mut gone = 0;
    loop {
        let forgotten = control.store.build_forget_unused(before).await?;
        gone += forgotten;
        if forgotten < u64::from(FORGET_BUILDS_MAX) {
            break;
        }
    }
    if gone > 0 {
        control.forget_builds().await;
        tracing::info!(builds = gone, "forgot builds that nothing refers to");
    }
    Ok(())
}

async fn end_waiting(control: &Control) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let before = now.checked_sub(RECIPE_WAIT).unwrap_or(Timestamp::MIN);
    let failure = BuildFailure {
        message: "build is in waiting state for too long".into(),
        step: None,
    };
    let ended = control.store.build_fail_waiting(before, &failure, now);
    let builds = ended.await?.len();
    if builds > 0 {
        tracing::info!(
            builds,
            "{builds} builds waited for their recipes for too long"
        );
    }
    Ok(())
}

async fn tidy(control: &Control) -> Result<(), StoreError> {
    let before = steady::now() - KEPT_FOR;
    let mut gone = control.store.idempotency_purge(before).await?;
    loop {
        let forgotten = control.store.sandbox_forget(before).await?;
        gone += forgotten;
        if forgotten < u64::from(FORGET_ROWS_MAX) {
            break;
        }
    }
    let failed_before = Timestamp::now() - FAILED_KEPT_FOR;
    loop {
        let forgotten = control.store.build_forget_failed(failed_before).await?;
        gone += forgotten;
        if forgotten < u64::from(FORGET_BUILDS_MAX) {
            break;
        }
    }
    control.drop_files(control.store.template_purge().await?);
    tracing::debug!(rows = gone, "removed old rows");
    Ok(())
}

/// One that resists does not keep the others: the next round tries it again.
async fn end_retention(control: &Control) -> Result<(), StoreError> {
    for team in control.store.team_list().await? {
        let limits = control.config.limits.of(&team);
        if let Some(before) = ago(steady::now(), limits.paused_days) {
            for row in control.store.sandbox_list_paused(&team.id, before).await? {
                let (id, reason) = (&row.id, EndReason::Retention);
                match control.end_paused(&row, reason, before).await {
                    Ok(()) => {}
                    Err(error) => tracing::warn!(
                        sandbox.id = %id, error = chain(&error),
                        "could not end sandbox {id}, which was paused for long enough"
                    ),
                }
            }
        }
        if let Some(before) = ago(Timestamp::now(), limits.snapshot_days) {
            let files = control.store.snapshot_expire(&team.id, before).await?;
            if !files.is_empty() {
                let snapshots = files.len();
                tracing::info!(team.id = %team.id, snapshots, "{snapshots} snapshots are over");
                control.forget_builds().await;
                control.drop_files(files);
            }
        }
    }
    Ok(())
}

/// So many days before; never for none.
fn ago(now: Timestamp, days: u32) -> Option<Timestamp> {
    let kept = Duration::from_secs(u64::from(days) * 24 * 3600);
    (days > 0).then(|| now.checked_sub(kept).unwrap_or(Timestamp::MIN))
}
