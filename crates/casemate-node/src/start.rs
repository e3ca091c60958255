//! What a node does before it answers: adopt what runs, sweep what is nobody's, listen for ends.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::NodeEvent;
use casemate_runtime::{AdoptError, RuntimeError};
use casemate_types::{EndReason, Kept, PauseReason, SandboxId, SnapshotId, chain, steady};
use tracing::{error, info, warn};

use crate::journal::{Entry, JournalError};
use crate::node::Inner;
use crate::pause;
use crate::sandbox::memory_full;

/// How often the node says how it is.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Memory that had to be kept for want of room is tried to be given up at one in so many.
const BEATS_A_BOUND: u32 = 6;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot read the boot id of this machine")]
    Boot(#[source] io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot sweep what an earlier run left")]
    Sweep(#[source] RuntimeError),
}

pub(crate) async fn take_over(node: &Arc<Inner>) -> Result<(), StartError> {
    let exits = node.runtime.exits();
    let (mut kept, mut unruled, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    let (mut held, mut resting, mut unsaved) = (Vec::new(), Vec::new(), Vec::new());
    for mut entry in node.journal.load()? {
        match adopt(node, &mut entry).await {
            Taken::Over => kept.push(entry),
            Taken::Held { memory_bytes } => held.push((entry, memory_bytes)),
            Taken::Unruled => unruled.push(entry),
            Taken::Gone { memory_kills } => match salvage(node, &mut entry).await {
                Salvaged::Files => resting.push((entry, memory_kills)),
                Salvaged::Unknown => {
                    unsaved.push(entry.sandbox.clone());
                    resting.push((entry, memory_kills));
                }
                Salvaged::Nothing => gone.push((entry, memory_kills)),
            },
        }
        failpoint::hit(Point::StartAdopted);
    }
    let of = |entries: &[Entry]| {
        entries
            .iter()
            .map(|e| e.sandbox.clone())
            .collect::<Vec<_>>()
    };
    let held_ids = held.iter().map(|(entry, _)| entry.sandbox.clone());
    let keep = [of(&kept), of(&unruled)].into_iter().flatten();
    let keep: BTreeSet<SandboxId> = keep.chain(held_ids).chain(unsaved).collect();
    node.runtime.sweep(&keep).await.map_err(StartError::Sweep)?;
    failpoint::hit(Point::StartSwept);
    let held_entries = held.iter().map(|(entry, _)| entry);
    let named = held_entries.chain(resting.iter().map(|(entry, _)| entry));
    if node.journal.has_unreadable()? {
        warn!("a journal entry cannot be read: files of pauses that nothing names stay");
    } else {
        drop_others(node, &named.filter_map(files_of).collect()).await;
    }
    let (adopted, lost) = (kept.len(), gone.len());
    let paused = held.len() + resting.len();
    for (entry, memory_kills) in gone.iter().chain(&resting).filter(|(entry, _)| !entry.warm) {
        if let Some(full) = memory_kills.and_then(|counted| memory_full(entry, counted)) {
            node.events.publish(full);
        }
    }
    for (entry, _) in gone {
        node.forget(&entry);
        node.events.publish(ended(entry));
    }
    for entry in kept {
        node.own(entry);
    }
    for (entry, memory_bytes) in held {
        let unfinished = entry
            .pause
            .as_ref()
            .is_some_and(|p| p.wanted == Kept::Files);
        let sandbox = entry.sandbox.clone();
        node.own_paused(entry, memory_bytes);
        if unfinished {
            node.give_up_processes(&sandbox, PauseReason::Asked);
        }
    }
    for (entry, _) in resting {
        node.own_paused(entry, 0);
    }
    node.bound_paused();
    for entry in unruled {
        let sandbox = entry.sandbox.clone();
        node.own(entry);
        let node = Arc::clone(node);
        node.tasks.clone().spawn(async move {
            // Its task goes on ending it for as long as that takes.
            let _ = node.kill(&sandbox, EndReason::Lost).await;
        });
    }
    if adopted + paused + lost > 0 {
        info!(
            adopted,
            paused,
            lost,
            "took over {adopted} sandboxes and {paused} paused ones; {lost} did not run any more"
        );
    }
    node.tasks.spawn(pass_on_exits(Arc::clone(node), exits));
    node.tasks.spawn(heartbeat(Arc::clone(node)));
    node.tasks.spawn(crate::look::run(Arc::clone(node)));
    Ok(())
}

enum Taken {
    Over,
    /// It is paused with its memory.
    Held {
        memory_bytes: u64,
    },
    /// It runs, and its rules cannot be set again: it would reach what it must not, so it is ended.
    Unruled,
    /// It does not run, or what runs is left to the sweep.
    Gone {
        memory_kills: Option<u64>,
    },
}

async fn adopt(node: &Inner, entry: &mut Entry) -> Taken {
    const UNKNOWN: Taken = Taken::Gone { memory_kills: None };
    let Some(record) = &entry.record else {
        return UNKNOWN;
    };
    if entry.boot != node.boot || entry.pause.as_ref().is_some_and(|p| p.kept == Kept::Files) {
        return UNKNOWN;
    }
    match node.runtime.adopt(record).await {
        Ok(()) => {}
        Err(AdoptError::Gone { memory_kills, .. }) => return Taken::Gone { memory_kills },
        Err(failed) => {
            let error = chain(&failed);
            warn!(sandbox.id = %entry.sandbox, error, "cannot take a sandbox over");
            return UNKNOWN;
        }
    }
    if entry.pause.is_some() {
        return hold(node, entry).await;
    }
    let (id, network) = (&entry.sandbox, &entry.network);
    // A crash may have left it held.
    let ruled = match node.runtime.set_network(id, network).await {
        Ok(()) => node.runtime.thaw(id).await,
        Err(failed) => Err(failed),
    };
    match ruled {
        Ok(()) => Taken::Over,
        Err(failed) => {
            let error = chain(&failed);
            error!(sandbox.id = %id, error, "cannot set the rules of a sandbox again; ending it");
            Taken::Unruled
        }
    }
}

/// Sees to it that a paused sandbox stands still, under its rules.
async fn hold(node: &Inner, entry: &mut Entry) -> Taken {
    let id = &entry.sandbox;
    let held = node.runtime.freeze(id).await;
    let ruled = node.runtime.set_network(id, &entry.network).await;
    match (held, ruled) {
        (Ok(frozen), Ok(())) => Taken::Held {
            memory_bytes: frozen.memory_bytes,
        },
        (Err(failed), _) | (_, Err(failed)) => {
            let error = chain(&failed);
            error!(sandbox.id = %id, error, "cannot keep a paused sandbox's processes; its files stay");
            if let Some(pause) = &mut entry.pause {
                pause.wanted = Kept::Files;
            }
            Taken::Held { memory_bytes: 0 }
        }
    }
}

enum Salvaged {
    Files,
    /// They could not be looked for. They are left where they are, and the next start looks again.
    Unknown,
    Nothing,
}

/// Keeps the files of a paused sandbox that does not run any more.
async fn salvage(node: &Inner, entry: &mut Entry) -> Salvaged {
    let (Some(pause), Some(record)) = (&mut entry.pause, &entry.record) else {
        return Salvaged::Nothing;
    };
    match node.snapshots.salvage(record, &pause.files).await {
        Ok(true) => {
            if pause.kept == Kept::Memory {
                if pause.wanted == Kept::Memory {
                    pause.reason = PauseReason::ProcessesLost;
                }
                pause.kept = Kept::Files;
                pause.wanted = Kept::Files;
                note(node, entry).await;
            }
            Salvaged::Files
        }
        Ok(false) => Salvaged::Nothing,
        Err(failed) => {
            let error = chain(&failed);
            error!(sandbox.id = %entry.sandbox, error, "cannot look for the files of a paused sandbox");
            pause.wanted = Kept::Files;
            Salvaged::Unknown
        }
    }
}

async fn note(node: &Inner, entry: &Entry) {
    if let Err(failed) = node.journal.replace_for_good(entry).await {
        // What it says leads to the same files.
        let error = chain(&failed);
        warn!(sandbox.id = %entry.sandbox, error, "cannot note that only files are kept");
    }
}

fn files_of(entry: &Entry) -> Option<SnapshotId> {
    entry.pause.as_ref().map(|pause| pause.files.clone())
}

/// Removes what pauses kept that no paused sandbox names: a crash came before it was removed.
async fn drop_others(node: &Inner, named: &BTreeSet<SnapshotId>) {
    let kept = match node.snapshots.list().await {
        Ok(kept) => kept,
        Err(failed) => {
            let error = chain(&failed);
            error!(error, "cannot list snapshots");
            return;
        }
    };
    for snapshot in kept
        .keys()
        .filter(|id| id.is_of_pause() && !named.contains(*id))
    {
        pause::drop_files(node, snapshot).await;
    }
}

/// How a sandbox that is not there any more is told of.
fn ended(entry: Entry) -> NodeEvent {
    let now = steady::now();
    let reason = match entry.record {
        Some(_) if entry.ends_at <= now => EndReason::Expired,
        Some(_) => EndReason::Exited,
        None => EndReason::Lost,
    };
    NodeEvent::Ended {
        sandbox: entry.sandbox,
        reason,
        at: now,
    }
}

async fn pass_on_exits(
    node: Arc<Inner>,
    mut exits: tokio::sync::mpsc::UnboundedReceiver<casemate_runtime::Exit>,
) {
    while let Some(exit) = exits.recv().await {
        node.exited(&exit.sandbox);
    }
}

async fn heartbeat(node: Arc<Inner>) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    for beat in 0_u32.. {
        ticks.tick().await;
        node.events
            .publish(NodeEvent::Heartbeat(Box::new(node.info())));
        if beat % BEATS_A_BOUND == 0 {
            node.bound_paused();
        }
        let keeper = Arc::clone(&node);
        node.tasks.spawn(async move { keeper.keep_bound().await });
    }
}
