//! What a platform that ends leaves of its paused sandboxes: their files.

use std::path::Path;

use casemate_runtime::{AdoptError, Runtime, SnapshotError, Snapshots};
use casemate_types::{Kept, PauseReason, chain};
use tracing::warn;

use crate::journal::{Entry, Journal, JournalError};

/// Why files were not kept. Nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot keep the files of paused sandbox {sandbox}")]
    Files {
        sandbox: casemate_types::SandboxId,
        #[source]
        source: SnapshotError,
    },
}

/// Keeps the files of every paused sandbox that the journal names, whose processes the teardown of
/// the runtime would end with everything else; how many there are. To be called between the opening
/// of the runtime and its teardown.
pub async fn keep_paused<R: Runtime + Snapshots>(
    journal_dir: &Path,
    runtime: &R,
) -> Result<usize, RestError> {
    let journal = Journal::open(journal_dir)?;
    let mut kept = 0;
    for mut entry in journal.load()? {
        let found = keep(runtime, &entry).await;
        let found = found.map_err(|source| RestError::Files {
            sandbox: entry.sandbox.clone(),
            source,
        })?;
        let Some(pause) = &mut entry.pause else {
            continue;
        };
        if !found {
            journal.remove(&entry.sandbox)?;
            continue;
        }
        if pause.kept == Kept::Memory {
            pause.kept = Kept::Files;
            pause.wanted = Kept::Files;
            pause.reason = PauseReason::ProcessesLost;
            journal.replace_for_good(&entry).await?;
        }
        kept += 1;
    }
    Ok(kept)
}

/// Whether there are files.
async fn keep<R: Runtime + Snapshots>(runtime: &R, entry: &Entry) -> Result<bool, SnapshotError> {
    let (Some(pause), Some(record)) = (&entry.pause, &entry.record) else {
        return Ok(false);
    };
    let runs = pause.kept == Kept::Memory
        && match runtime.adopt(record).await {
            Ok(()) => true,
            Err(AdoptError::Gone { .. }) => false,
            Err(failed) => {
                let error = chain(&failed);
                warn!(sandbox.id = %entry.sandbox, error, "cannot take a paused sandbox over");
                false
            }
        };
    match runs {
        true => runtime
            .suspend(&entry.sandbox, &pause.files)
            .await
            .map(|()| true),
        false => runtime.salvage(record, &pause.files).await,
    }
}

/// Forgets every sandbox that is not paused.
pub fn forget_others(journal_dir: &Path) -> Result<(), JournalError> {
    let journal = Journal::open(journal_dir)?;
    let ended = journal
        .load()?
        .into_iter()
        .filter(|entry| entry.pause.is_none());
    ended
        .map(|entry| journal.remove(&entry.sandbox))
        .fold(Ok(()), Result::and)
}
