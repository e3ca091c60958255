//! Removes logs of builds whose rows are gone. The two are in different databases: the row goes first,
//! and what a crash leaves of its log goes with the next round.

use casemate_history::HistoryError;
use casemate_store::{BuildId, StoreError};

use crate::Control;

/// Builds that are looked at together.
const BATCH: u32 = 500;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ForgetLogsError {
    #[error("ask which builds there are")]
    Store(#[from] StoreError),
    #[error("list or remove logs of builds")]
    History(#[from] HistoryError),
}

impl Control {
    /// Idempotent.
    pub(crate) async fn forget_build_logs(&self) -> Result<(), ForgetLogsError> {
        let (mut after, mut removed) = (None, 0);
        loop {
            let logged = self.history.build_logs_list(after.as_deref(), BATCH);
            let logged: Vec<String> = logged.await?;
            let ids = logged.iter().filter_map(|id| BuildId::parse(id).ok());
            let ids: Vec<BuildId> = ids.collect();
            let known = self.store.build_known(&ids).await?;
            let known: Vec<String> = known.iter().map(BuildId::to_string).collect();
            let gone = logged.iter().filter(|id| !known.contains(id));
            let gone: Vec<String> = gone.cloned().collect();
            if !gone.is_empty() {
                self.history.build_logs_remove(&gone).await?;
                removed += gone.len();
            }
            after = match logged.last() {
                Some(last) if logged.len() >= BATCH as usize => Some(last.clone()),
                Some(_) | None => break,
            };
        }
        if removed > 0 {
            tracing::debug!(builds = removed, "removed logs of builds that are gone");
        }
        Ok(())
    }
}
