//! Removes rows that nobody needs any more.

use std::sync::Arc;
use std::time::Duration;

use casemate_store::StoreError;
use casemate_store::sandboxes::FORGET_ROWS_MAX;
use casemate_types::{chain, steady};

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
