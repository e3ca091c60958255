//! What a node does before it answers: adopt what runs, sweep what is nobody's, listen for ends.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use casemate_failpoint::{self as failpoint, Point};
use casemate_rpc::NodeEvent;
use casemate_runtime::{AdoptError, RuntimeError};
use casemate_types::{EndReason, SandboxId, chain, steady};
use tracing::{error, info, warn};

use crate::journal::{Entry, JournalError};
use crate::node::Inner;
use crate::sandbox::memory_full;

/// How often the node says how it is.
const HEARTBEAT: Duration = Duration::from_secs(5);

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
    for entry in node.journal.load()? {
        match adopt(node, &entry).await {
            Taken::Over => kept.push(entry),
            Taken::Unruled => unruled.push(entry),
            Taken::Gone { memory_kills } => gone.push((entry, memory_kills)),
        }
        failpoint::hit(Point::StartAdopted);
    }
    let of = |entries: &[Entry]| {
        entries
            .iter()
            .map(|e| e.sandbox.clone())
            .collect::<Vec<_>>()
    };
    let keep: BTreeSet<SandboxId> = [of(&kept), of(&unruled)].into_iter().flatten().collect();
    node.runtime.sweep(&keep).await.map_err(StartError::Sweep)?;
    failpoint::hit(Point::StartSwept);
    let (adopted, lost) = (kept.len(), gone.len());
    for (entry, memory_kills) in gone {
        if let Some(full) = memory_kills.and_then(|counted| memory_full(&entry, counted)) {
            node.events.publish(full);
        }
        node.forget(&entry);
        node.events.publish(ended(entry));
    }
    for entry in kept {
        node.own(entry);
    }
    for entry in unruled {
        let sandbox = entry.sandbox.clone();
        node.own(entry);
        let node = Arc::clone(node);
        node.tasks.clone().spawn(async move {
            // Its task goes on ending it for as long as that takes.
            let _ = node.kill(&sandbox, EndReason::Lost).await;
        });
    }
    if adopted + lost > 0 {
        info!(
            adopted,
            lost, "took over {adopted} sandboxes; {lost} did not run any more"
        );
    }
    node.tasks.spawn(pass_on_exits(Arc::clone(node), exits));
    node.tasks.spawn(heartbeat(Arc::clone(node)));
    node.tasks.spawn(crate::look::run(Arc::clone(node)));
    Ok(())
}

enum Taken {
    Over,
    /// It runs, and its rules cannot be set again: it would reach what it must not, so it is ended.
    Unruled,
    /// It does not run, or what runs is left to the sweep.
    Gone {
        memory_kills: Option<u64>,
    },
}

async fn adopt(node: &Inner, entry: &Entry) -> Taken {
    const UNKNOWN: Taken = Taken::Gone { memory_kills: None };
    let Some(record) = &entry.record else {
        return UNKNOWN;
    };
    if entry.boot != node.boot {
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
    let (id, network) = (&entry.sandbox, &entry.network);
    match node.runtime.set_network(id, network).await {
        Ok(()) => Taken::Over,
        Err(failed) => {
            let error = chain(&failed);
            error!(sandbox.id = %id, error, "cannot set the rules of a sandbox again; ending it");
            Taken::Unruled
        }
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
    loop {
        ticks.tick().await;
        node.events
            .publish(NodeEvent::Heartbeat(Box::new(node.info())));
    }
}
