//! Pausing a sandbox, and what is left of one when memory runs short or its processes are lost.
//!
//! ```text
//!                 freeze        journal, for good           keep files, end processes     journal
//! pause: running ───────▶ held ──────────────────▶ memory ───────────────────────────▶ ─────────▶ files
//! ```
//!
//! The journal comes after the freeze and before anything is given up, so that a crash in between
//! leaves either a sandbox that runs or one that is paused. Where there is no room for its files, it
//! stays paused with its memory. Its own files need no sync for a pause with memory: what its
//! programs made sure of is on the disk, and the rest goes with a power loss as on every machine.

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::{NodeError, PauseReply};
use casemate_runtime::{RuntimeError, SnapshotError};
use casemate_types::{Kept, PauseReason, SnapshotId, chain, steady};
use tracing::{error, info, warn};

use crate::journal::{Entry, Pause};
use crate::node::{Inner, internal, snapshot_error};

/// Pauses it, or gives up the memory of one that is paused, if that is asked for and there is room
/// for its files; the answer says which.
pub(crate) async fn pause(
    node: &Inner,
    entry: &mut Entry,
    kept: Kept,
    reason: PauseReason,
) -> Result<PauseReply, NodeError> {
    if entry.pause.is_none() {
        hold(node, entry, kept, reason).await?;
    }
    let is_held = entry
        .pause
        .as_ref()
        .is_some_and(|pause| pause.kept == Kept::Memory);
    if is_held && kept == Kept::Files {
        match give_up_processes(node, entry, reason).await {
            Ok(()) => {}
            // It is paused, with more than was asked for.
            Err(NodeError::DiskFull { .. }) => node.bound_paused(),
            Err(failed) => return Err(failed),
        }
    }
    let Some(pause) = &entry.pause else {
        return Err(NodeError::Internal {
            why: "it was paused and is not".into(),
        });
    };
    Ok(PauseReply {
        at: pause.at,
        kept: pause.kept,
    })
}

/// Running → paused with its memory.
async fn hold(
    node: &Inner,
    entry: &mut Entry,
    wanted: Kept,
    reason: PauseReason,
) -> Result<(), NodeError> {
    let id = entry.sandbox.clone();
    let frozen = node
        .runtime
        .freeze(&id)
        .await
        .map_err(|failed| match failed {
            RuntimeError::NotFound(sandbox) => NodeError::NotFound(sandbox),
            RuntimeError::Step { .. } => NodeError::PauseFailed {
                why: chain(&failed),
            },
        })?;
    failpoint::hit(Point::PauseFrozen);
    let next = Entry {
        pause: Some(Pause {
            at: steady::now(),
            kept: Kept::Memory,
            wanted,
            reason,
            files: SnapshotId::random_of_pause(),
        }),
        ..entry.clone()
    };
    if let Err(failed) = node.journal.replace_for_good(&next).await {
        go_on(node, entry).await;
        return Err(internal(&failed));
    }
    *entry = next;
    failpoint::hit(Point::PauseNoted);
    // What it wrote last; what is left waits until it goes on.
    node.read_log(&id);
    // Whatever is to be given up of it: it is paused from here on.
    node.note_paused(entry, frozen.memory_bytes);
    if wanted == Kept::Memory {
        node.bound_paused();
    }
    info!(sandbox.id = %id, ?reason, memory_bytes = frozen.memory_bytes, "paused sandbox {id}");
    Ok(())
}

/// Undoes a freeze whose sandbox the journal says to run.
async fn go_on(node: &Inner, entry: &Entry) {
    // It may have been written before it could not be synced.
    if let Err(failed) = node.journal.replace(entry) {
        let error = chain(&failed);
        error!(sandbox.id = %entry.sandbox, error, "cannot note that a sandbox was not paused");
    }
    if let Err(failed) = node.runtime.thaw(&entry.sandbox).await {
        let error = chain(&failed);
        error!(sandbox.id = %entry.sandbox, error, "cannot let a sandbox go on");
    }
}

/// Paused with its memory → paused with its files alone. [`NodeError::DiskFull`]: it is paused with
/// its memory still.
pub(crate) async fn give_up_processes(
    node: &Inner,
    entry: &mut Entry,
    reason: PauseReason,
) -> Result<(), NodeError> {
    let id = entry.sandbox.clone();
    let Some(pause) = entry.pause.clone() else {
        return Ok(());
    };
    let (files, reason_before) = (pause.files.clone(), pause.reason);
    if pause.wanted == Kept::Memory {
        // Once its processes may be gone, nobody may take it for one that has them. As long as that
        // is not written, it is one that has them.
        let next = Entry {
            pause: Some(Pause {
                wanted: Kept::Files,
                reason,
                ..pause
            }),
            ..entry.clone()
        };
        let noted = node.journal.replace_kept(&next).await;
        noted.map_err(|failed| internal(&failed))?;
        *entry = next;
    }
    match node.snapshots.suspend(&id, &files).await {
        Ok(()) => {}
        // It does not run here: what was left of it is looked for.
        Err(SnapshotError::NotFound(_)) => find_files(node, entry, &files).await?,
        Err(failed @ SnapshotError::Capacity(_)) => {
            if ![reason, reason_before].contains(&PauseReason::ProcessesLost) {
                keep_processes(node, entry, reason_before).await;
            }
            let what = chain(&failed);
            warn!(sandbox.id = %id, error = what, "sandbox {id} stays paused with its memory");
            return Err(NodeError::DiskFull { what });
        }
        Err(failed) => {
            return Err(NodeError::PauseFailed {
                why: chain(&failed),
            });
        }
    }
    failpoint::hit(Point::PauseGivenUp);
    only_files(node, entry, reason).await;
    info!(sandbox.id = %id, ?reason, "kept the files of sandbox {id} alone");
    Ok(())
}

/// Notes that its processes stand still as before. Where that is not so or cannot be noted, they are
/// not let go on: giving them up is tried again.
async fn keep_processes(node: &Inner, entry: &mut Entry, reason: PauseReason) {
    let mut next = entry.clone();
    if let Some(pause) = &mut next.pause {
        pause.wanted = Kept::Memory;
        pause.reason = reason;
    }
    let failed = match node.runtime.freeze(&entry.sandbox).await {
        Ok(_) => match node.journal.replace_kept(&next).await {
            Ok(()) => {
                *entry = next;
                return;
            }
            Err(failed) => chain(&failed),
        },
        Err(failed) => chain(&failed),
    };
    warn!(sandbox.id = %entry.sandbox, error = failed, "cannot keep a memory that was to be given up");
}

async fn find_files(node: &Inner, entry: &Entry, files: &SnapshotId) -> Result<(), NodeError> {
    let failed = |why: String| NodeError::PauseFailed { why };
    let Some(record) = &entry.record else {
        return Err(failed("nothing says what it left".into()));
    };
    match node.snapshots.salvage(record, files).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed("nothing is left of it".into())),
        Err(error) => Err(failed(chain(&error))),
    }
}

/// Notes that its files are kept and nothing else. A journal that cannot be written says that its
/// processes stand still; whoever starts then finds the files all the same.
pub(crate) async fn only_files(node: &Inner, entry: &mut Entry, reason: PauseReason) {
    if let Some(pause) = &mut entry.pause {
        pause.kept = Kept::Files;
        pause.wanted = Kept::Files;
        pause.reason = reason;
    }
    if let Err(failed) = node.journal.replace_kept(entry).await {
        let error = chain(&failed);
        warn!(sandbox.id = %entry.sandbox, error, "cannot note that only files are kept");
    }
    node.note_paused(entry, 0);
}

/// The same for what nobody waits for. What cannot be kept now is tried again by whoever calls.
pub(crate) async fn files_from_now_on(node: &Inner, entry: &mut Entry, reason: PauseReason) {
    let holds = matches!(&entry.pause, Some(pause) if pause.kept == Kept::Memory);
    if holds && let Err(failed) = give_up_processes(node, entry, reason).await {
        let error = chain(&failed);
        error!(sandbox.id = %entry.sandbox, error, "cannot keep the files of a paused sandbox alone");
    }
}

/// The name of its files, which are there already where they alone are kept, or are copied to this one
/// while its processes stand still.
pub(crate) async fn keep_files(
    node: &Inner,
    entry: &Entry,
    files: &SnapshotId,
) -> Result<SnapshotId, NodeError> {
    let Some(pause) = &entry.pause else {
        return Err(NodeError::Exists(entry.sandbox.clone()));
    };
    match (pause.kept, pause.wanted) {
        (Kept::Files, _) => Ok(pause.files.clone()),
        (Kept::Memory, Kept::Memory) => {
            let taken = node.snapshots.take(&entry.sandbox, files).await;
            taken.map_err(snapshot_error)?;
            Ok(files.clone())
        }
        // Its processes are being given up: soon its files are there alone.
        (Kept::Memory, Kept::Files) => Err(NodeError::Paused(entry.sandbox.clone())),
    }
}

/// Files that nobody needs any more. What cannot be removed now goes with the node's next start.
pub(crate) async fn drop_files(node: &Inner, files: &SnapshotId) {
    if let Err(failed) = node.snapshots.remove(files).await {
        let error = chain(&failed);
        warn!(snapshot.id = %files, error, "cannot remove the files of a pause yet");
    }
}
