//! The task that owns one sandbox, running or paused: commands in, its end out.

use std::sync::Arc;
use std::time::Duration;

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::{
    ClaimRequest, CreateReply, NodeError, NodeEvent, PauseReply, ResumeReply, ResumeRequest,
    SnapshotReply,
};
use casemate_types::{
    CompiledPolicy, EndReason, Kept, OnTimeout, PauseReason, SandboxId, SnapshotId, Timestamp,
    chain, steady,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::create::ends_at;
use crate::journal::{Entry, JournalError};
use crate::node::{Inner, snapshot_error};
use crate::{pause, resume};

/// Commands that may wait for one sandbox; a sender beyond it waits.
pub(crate) const COMMANDS_MAX: usize = 64;
/// Timers stand still while the machine is suspended, and deadlines do not: they are looked at anew
/// at least this often.
const DEADLINE_LOOK: Duration = Duration::from_secs(20);
/// A stop that failed is tried again after this long.
const STOP_RETRY: Duration = Duration::from_secs(1);
/// A pause at the deadline that failed is tried again after this long.
const PAUSE_RETRY: Duration = Duration::from_secs(5);

/// Where the answer to a command goes. A caller that left does not need it.
pub(crate) type Done<T = ()> = oneshot::Sender<Result<T, NodeError>>;

#[derive(Debug)]
pub(crate) enum Command {
    Kill {
        reason: EndReason,
        done: Done,
    },
    Claim {
        claim: ClaimRequest,
        done: Done<CreateReply>,
    },
    /// Another one needs its place, if nobody has claimed it.
    GiveWay {
        done: Done,
    },
    Pause {
        kept: Kept,
        done: Done<PauseReply>,
    },
    Resume {
        request: Box<ResumeRequest>,
        done: Done<ResumeReply>,
    },
    Snapshot {
        snapshot: SnapshotId,
        done: Done<SnapshotReply>,
    },
    /// Of one that is paused.
    KeepPaused {
        files: SnapshotId,
        done: Done<SnapshotId>,
    },
    /// It is paused, and only its files are to be kept from now on.
    GiveUpProcesses(PauseReason),
    SetDeadline {
        ends_at: Timestamp,
        done: Done,
    },
    SetNetwork {
        policy: CompiledPolicy,
        done: Done,
    },
    /// So many of its processes were ended for want of memory, since it was made.
    MemoryKills(u64),
    /// Control has a row of it.
    Recorded,
    /// It ended by itself.
    Exited,
}

/// Runs until the sandbox is gone and everybody who asked has an answer.
pub(crate) async fn own(node: Arc<Inner>, mut entry: Entry, mut inbox: mpsc::Receiver<Command>) {
    let (reason, done) = live(&node, &mut entry, &mut inbox).await;
    node.note_ending(&entry.sandbox);
    let by_time = reason == EndReason::Expired;
    let die =
        |by_time_at, ordered_at| failpoint::hit(if by_time { by_time_at } else { ordered_at });
    die(Point::ExpiryBegun, Point::KillBegun);
    // What it wrote last, and what the kernel did to it; with it goes the rest.
    node.read_log(&entry.sandbox);
    if let Some(counted) = node.runtime.memory_kills(&entry.sandbox) {
        tell_memory_kills(&node, &mut entry, counted).await;
    }
    stop(&node, &entry.sandbox, reason).await;
    if let Some(pause) = &entry.pause
        && pause.wanted == Kept::Files
    {
        pause::drop_files(&node, &pause.files).await;
    }
    die(Point::ExpiryStopped, Point::KillStopped);
    node.forget(&entry);
    die(Point::ExpiryForgotten, Point::KillForgotten);
    inbox.close();
    // A caller that left does not need its answer.
    done.map(|done| done.send(Ok(())));
    while let Some(command) = inbox.recv().await {
        let gone = NodeError::NotFound(entry.sandbox.clone());
        match command {
            Command::Kill { done, .. } | Command::GiveWay { done } => drop(done.send(Ok(()))),
            Command::Claim { done, .. } => drop(done.send(Err(gone))),
            Command::SetDeadline { done, .. } | Command::SetNetwork { done, .. } => {
                drop(done.send(Err(gone)));
            }
            Command::Pause { done, .. } => drop(done.send(Err(gone))),
            Command::Resume { done, .. } => drop(done.send(Err(gone))),
            Command::Snapshot { done, .. } => drop(done.send(Err(gone))),
            Command::KeepPaused { done, .. } => drop(done.send(Err(gone))),
            Command::GiveUpProcesses(_)
            | Command::Exited
            | Command::Recorded
            | Command::MemoryKills(_) => {}
        }
    }
    let ended = NodeEvent::Ended {
        sandbox: entry.sandbox,
        reason,
        at: steady::now(),
    };
    node.events.publish(ended);
}

/// Until something ends it: why, and who waits for it.
async fn live(
    node: &Arc<Inner>,
    entry: &mut Entry,
    inbox: &mut mpsc::Receiver<Command>,
) -> (EndReason, Option<Done>) {
    // When a pause that failed is tried again.
    let mut not_before = Timestamp::MIN;
    loop {
        let command = match due(entry, not_before) {
            None => inbox.recv().await,
            Some(left) if left.is_zero() && entry.pause.is_some() => {
                not_before = steady::now() + PAUSE_RETRY;
                let reason = entry.pause.as_ref().map(|pause| pause.reason);
                let reason = reason.unwrap_or(PauseReason::ProcessesLost);
                pause::files_from_now_on(node, entry, reason).await;
                continue;
            }
            Some(left) if left.is_zero() => match entry.on_timeout {
                OnTimeout::Kill => return (EndReason::Expired, None),
                OnTimeout::Pause(kept) => {
                    failpoint::hit(Point::ExpiryBegun);
                    if let Err(failed) = pause::pause(node, entry, kept, PauseReason::Expired).await
                    {
                        not_before = steady::now() + PAUSE_RETRY;
                        error!(
                            sandbox.id = %entry.sandbox, error = %failed,
                            "cannot pause sandbox {} at its deadline; trying again", entry.sandbox
                        );
                    }
                    continue;
                }
            },
            Some(left) => tokio::select! {
                command = inbox.recv() => command,
                () = tokio::time::sleep(left.min(DEADLINE_LOOK)) => continue,
            },
        };
        match command {
            Some(Command::Kill { reason, done }) => return (reason, Some(done)),
            Some(Command::GiveWay { done }) if entry.warm => {
                return (EndReason::Killed, Some(done));
            }
            Some(Command::GiveWay { done }) => {
                let _ = done.send(Err(NodeError::Exists(entry.sandbox.clone())));
            }
            Some(Command::Claim { claim, done }) => {
                let _ = done.send(self::claim(node, entry, &claim));
            }
            Some(Command::Exited) => match entry.pause {
                None => return (EndReason::Exited, None),
                Some(_) => pause::files_from_now_on(node, entry, PauseReason::ProcessesLost).await,
            },
            Some(Command::Pause { kept, done }) => {
                let paused = pause::pause(node, entry, kept, PauseReason::Asked).await;
                let _ = done.send(paused);
            }
            Some(Command::Resume { request, done }) => {
                let resumed = resume::resume(node, entry, *request).await;
                let _ = done.send(resumed);
            }
            Some(Command::Snapshot { snapshot, done }) => {
                let _ = done.send(take_snapshot(node, entry, &snapshot).await);
            }
            Some(Command::KeepPaused { files, done }) => {
                let _ = done.send(pause::keep_files(node, entry, &files).await);
            }
            Some(Command::GiveUpProcesses(reason)) => {
                pause::files_from_now_on(node, entry, reason).await;
            }
            Some(Command::SetDeadline { ends_at, done }) => {
                let set = awake(entry).and_then(|()| set_deadline(node, entry, ends_at));
                let _ = done.send(set);
            }
            Some(Command::SetNetwork { policy, done }) => {
                let set = match awake(entry) {
                    Ok(()) => set_network(node, entry, policy).await,
                    Err(paused) => Err(paused),
                };
                let _ = done.send(set);
            }
            Some(Command::Recorded) => record(node, entry).await,
            // What it was started for may be gone with them.
            Some(Command::MemoryKills(counted))
                if entry.warm && entry.memory_kills.is_some_and(|told| counted > told) =>
            {
                return (EndReason::Killed, None);
            }
            Some(Command::MemoryKills(counted)) => tell_memory_kills(node, entry, counted).await,
            // The node itself holds a sender for as long as the sandbox is in its table.
            None => return (EndReason::Killed, None),
        }
    }
}

/// How long until its deadline is acted on; while it rests, until what should be given up of it is
/// tried again.
fn due(entry: &Entry, not_before: Timestamp) -> Option<Duration> {
    let at = match &entry.pause {
        None => entry.ends_at.max(not_before),
        Some(pause) if pause.kept == Kept::Memory && pause.wanted == Kept::Files => not_before,
        Some(_) => return None,
    };
    let left = Duration::try_from(at.duration_since(steady::now()));
    Some(left.unwrap_or_default())
}

fn awake(entry: &Entry) -> Result<(), NodeError> {
    match entry.pause {
        None => Ok(()),
        Some(_) => Err(NodeError::Paused(entry.sandbox.clone())),
    }
}

async fn take_snapshot(
    node: &Inner,
    entry: &Entry,
    snapshot: &SnapshotId,
) -> Result<SnapshotReply, NodeError> {
    awake(entry)?;
    let taken = node.snapshots.take(&entry.sandbox, snapshot).await;
    let taken = taken.map_err(snapshot_error)?;
    Ok(SnapshotReply {
        frozen_us: u64::try_from(taken.frozen.as_micros()).unwrap_or(u64::MAX),
        bytes: taken.bytes,
        is_shared: taken.is_shared,
    })
}

/// Writes a change that is no promise itself, but may be of an entry that is one.
async fn rewrite(node: &Inner, entry: &Entry) -> Result<(), JournalError> {
    match entry.pause {
        None => node.journal.replace(entry),
        Some(_) => node.journal.replace_kept(entry).await,
    }
}

async fn record(node: &Inner, entry: &mut Entry) {
    if entry.recorded {
        return;
    }
    let next = Entry {
        recorded: true,
        ..entry.clone()
    };
    match rewrite(node, &next).await {
        Ok(()) => {
            *entry = next;
            node.note_recorded(&entry.sandbox);
        }
        // Control says it again when it is connected anew.
        Err(failed) => {
            let error = chain(&failed);
            warn!(sandbox.id = %entry.sandbox, error, "cannot mark a journal entry as recorded");
        }
    }
}

/// Told first: after a crash in between it is told twice, and not never.
async fn tell_memory_kills(node: &Inner, entry: &mut Entry, counted: u64) {
    if entry.memory_kills.is_some_and(|told| counted <= told) {
        return;
    }
    // Of one that nobody knows nobody needs to hear.
    if let Some(full) = memory_full(entry, counted).filter(|_| !entry.warm) {
        node.events.publish(full);
    }
    entry.memory_kills = Some(counted);
    node.note_memory_kills(&entry.sandbox, counted);
    if let Err(failed) = rewrite(node, entry).await {
        // The next change of the entry writes it too.
        let error = chain(&failed);
        warn!(sandbox.id = %entry.sandbox, error, "cannot note ends for want of memory");
    }
}

/// What was not told of yet. Where nothing was counted, by an earlier version, that told it.
pub(crate) fn memory_full(entry: &Entry, counted: u64) -> Option<NodeEvent> {
    let processes = counted.checked_sub(entry.memory_kills?)?;
    (processes > 0).then(|| NodeEvent::MemoryFull {
        sandbox: entry.sandbox.clone(),
        team: entry.team.clone(),
        at: Timestamp::now(),
        processes,
    })
}

/// Its life as its new owner knows it begins here.
fn claim(node: &Inner, entry: &mut Entry, claim: &ClaimRequest) -> Result<CreateReply, NodeError> {
    if !entry.warm {
        return Err(NodeError::Exists(entry.sandbox.clone()));
    }
    let started_at = steady::now();
    let next = Entry {
        started_at,
        ends_at: ends_at(started_at, claim.life_ms),
        on_timeout: claim.on_timeout,
        warm: false,
        entrance: claim.entrance.clone().or(entry.entrance.clone()),
        ..entry.clone()
    };
    let noted = node.journal.replace(&next);
    noted.map_err(|failed| crate::node::internal(&failed))?;
    *entry = next;
    node.note_claimed(entry);
    info!(sandbox.id = %entry.sandbox, "gave away sandbox {}", entry.sandbox);
    Ok(CreateReply {
        started_at,
        ends_at: entry.ends_at,
    })
}

fn set_deadline(node: &Inner, entry: &mut Entry, ends_at: Timestamp) -> Result<(), NodeError> {
    let next = Entry {
        ends_at,
        ..entry.clone()
    };
    node.journal
        .replace(&next)
        .map_err(|e| crate::node::internal(&e))?;
    *entry = next;
    node.note_deadline(&entry.sandbox, ends_at);
    Ok(())
}

/// Written first: after a crash in between, the start applies what the journal says.
async fn set_network(
    node: &Inner,
    entry: &mut Entry,
    policy: CompiledPolicy,
) -> Result<(), NodeError> {
    let next = Entry {
        network: policy,
        ..entry.clone()
    };
    node.journal
        .replace(&next)
        .map_err(|e| crate::node::internal(&e))?;
    let former = std::mem::replace(entry, next);
    let applied = node
        .runtime
        .set_network(&entry.sandbox, &entry.network)
        .await;
    if applied.is_err() {
        // What holds is what held before.
        *entry = former;
        node.journal
            .replace(entry)
            .map_err(|e| crate::node::internal(&e))?;
    }
    node.note_network(entry);
    applied.map_err(crate::node::runtime_error)
}

/// Ends its processes, however often that takes: nobody else would.
pub(crate) async fn stop(node: &Inner, sandbox: &SandboxId, reason: EndReason) {
    let mut tries = 0_u32;
    while let Err(failed) = node.runtime.stop(sandbox).await {
        tries += 1;
        if tries.is_power_of_two() {
            let error = chain(&failed);
            error!(sandbox.id = %sandbox, error, tries, "cannot end sandbox {sandbox}");
        }
        tokio::time::sleep(STOP_RETRY).await;
    }
    if tries > 0 {
        warn!(sandbox.id = %sandbox, tries, "ended sandbox {sandbox} at last");
    }
    info!(sandbox.id = %sandbox, ?reason, "ended sandbox {sandbox}");
}
