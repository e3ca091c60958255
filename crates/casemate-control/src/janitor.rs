//! Removes what nobody needs any more: old rows, and paused sandboxes and snapshots that were kept for
//! as long as their team keeps such (decision 21).

use std::sync::Arc;
use std::time::Duration;

use casemate_store::StoreError;
use casemate_store::sandboxes::FORGET_ROWS_MAX;
use casemate_types::{EndReason, Timestamp, chain, steady};

use crate::Control;

const ROUND: Duration = Duration::from_secs(600);
/// Idempotency keys are kept this long (`api.md` 3.0), and so are rows of dead sandboxes: a node
/// that was away is still told to end what it runs.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// For ever.
pub(crate) async fn run(control: Arc<Control>) {
    let mut round = tokio::time::interval(ROUND);
    loop {
        round.tick().await;
        if let Err(error) = end_retention(&control).await {
            tracing::warn!(
                error = chain(&error),
                "could not look for what was kept for long enough; trying again later"
            );
        }
        if let Err(error) = tidy(&control).await {
            tracing::warn!(
                error = chain(&error),
                "could not remove old rows; trying again later"
            );
        }
    }
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
                control.builds_by_reference.clear();
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
