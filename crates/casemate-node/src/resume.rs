//! Letting a paused sandbox go on: with its processes, or started anew with its files.
//!
//! With its processes the journal comes before the thaw: a crash in between leaves one that runs,
//! and the start lets it go on. Started anew, the old entry stands until the new sandbox serves, and
//! its files until that is journalled; those that a crash leaves go with the next start.

use std::sync::Arc;

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::{CreateRequest, NodeError, ResumeReply, ResumeRequest};
use casemate_types::{Kept, PauseReason, chain, steady};
use tracing::{error, info};

use crate::create::ends_at;
use crate::journal::{Entry, Pause};
use crate::node::Inner;
use crate::pause::{drop_files, give_up_processes};
use crate::sandbox::Command;

impl Inner {
    /// A sandbox that has to start waits for its turn, as a new one does, before its task is told:
    /// meanwhile that takes other orders.
    pub(crate) async fn resume(
        self: &Arc<Self>,
        request: ResumeRequest,
    ) -> Result<ResumeReply, NodeError> {
        let sandbox = request.sandbox.sandbox.clone();
        let starts = request.from == Kept::Files || self.rests_with(&sandbox) == Some(Kept::Files);
        let _turn = if starts {
            Some(self.turn().await?)
        } else {
            None
        };
        let request = Box::new(request);
        self.command(&sandbox, |done| Command::Resume { request, done })
            .await
    }
}

/// Runs in the sandbox's task.
pub(crate) async fn resume(
    node: &Arc<Inner>,
    entry: &mut Entry,
    request: ResumeRequest,
) -> Result<ResumeReply, NodeError> {
    let id = entry.sandbox.clone();
    let Some(pause) = entry.pause.clone() else {
        return Err(NodeError::Exists(id));
    };
    // One whose processes were to be given up may have lost them half-way.
    let from = match (pause.kept, pause.wanted, request.from) {
        (Kept::Memory, Kept::Memory, Kept::Memory) => Kept::Memory,
        (Kept::Memory | Kept::Files, ..) => Kept::Files,
    };
    // Before anything is changed: more may have been kept when it was asked for.
    if from == Kept::Files && request.with_memory_only {
        return Err(NodeError::FilesOnly(id));
    }
    let before = node
        .with_room(&entry.resources, || node.admit_back(&id, from))
        .await?;
    let resumed = match from {
        Kept::Memory => go_on(node, entry, &request.sandbox).await,
        Kept::Files => start_anew(node, entry, request.sandbox, pause).await,
    };
    if let Err(failed) = resumed {
        let mut before = before;
        if let Some(pause) = &entry.pause
            && pause.kept == Kept::Files
        {
            before.shown.kept = Kept::Files;
            before.memory_bytes = 0;
        }
        node.put_back(entry, before);
        error!(sandbox.id = %id, error = %failed, "cannot resume sandbox {id}");
        return Err(failed);
    }
    node.note_resumed(entry);
    info!(sandbox.id = %id, ?from, "resumed sandbox {id}");
    Ok(ResumeReply {
        started_at: entry.started_at,
        ends_at: entry.ends_at,
        from,
    })
}

async fn go_on(node: &Inner, entry: &mut Entry, request: &CreateRequest) -> Result<(), NodeError> {
    let started_at = steady::now();
    let next = Entry {
        started_at,
        ends_at: ends_at(started_at, request.life_ms),
        on_timeout: request.on_timeout,
        pause: None,
        entrance: request.entrance.clone().or(entry.entrance.clone()),
        ..entry.clone()
    };
    let noted = node.journal.replace(&next);
    noted.map_err(|failed| crate::node::internal(&failed))?;
    failpoint::hit(Point::ResumeNoted);
    if let Err(failed) = node.runtime.thaw(&entry.sandbox).await {
        if let Err(failed) = node.journal.replace_for_good(entry).await {
            let error = chain(&failed);
            error!(sandbox.id = %entry.sandbox, error, "cannot note that a sandbox is still paused");
        }
        // That it does not run here is no word that it is gone: its files may be there.
        return Err(NodeError::Internal {
            why: chain(&failed),
        });
    }
    failpoint::hit(Point::ResumeThawed);
    *entry = next;
    Ok(())
}

async fn start_anew(
    node: &Inner,
    entry: &mut Entry,
    mut request: CreateRequest,
    pause: Pause,
) -> Result<(), NodeError> {
    give_up_if_held(node, entry, &pause).await?;
    request.files = Some(pause.files.clone());
    request.entrance = request.entrance.or(entry.entrance.clone());
    // A row whose build is gone names none: over nothing its files would be no system.
    if request.layers.is_empty() {
        return Err(NodeError::Unsupported {
            why: "the layers of a paused sandbox are not known".into(),
        });
    }
    node.hold_layers(&request.sandbox, &request.layers)?;
    let offer = node.offered();
    let spec = offer.spec(&request)?;
    *entry = node.start(&request, spec, Point::ResumeServes).await?;
    failpoint::hit(Point::ResumeKept);
    drop_files(node, &pause.files).await;
    Ok(())
}

async fn give_up_if_held(node: &Inner, entry: &mut Entry, pause: &Pause) -> Result<(), NodeError> {
    match pause.kept {
        Kept::Memory => give_up_processes(node, entry, PauseReason::Asked).await,
        Kept::Files => Ok(()),
    }
}
