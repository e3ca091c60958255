//! What a node does before it answers: adopt what runs, sweep what is nobody's, listen for ends.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use casemate_rpc::NodeEvent;
use casemate_runtime::{AdoptError, RuntimeError};
use casemate_types::{EndReason, SandboxId, Timestamp};
use tracing::{error, info, warn};

use crate::journal::{Entry, JournalError};
use crate::node::Inner;

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
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for entry in node.journal.load()? {
        if adopt(node, &entry).await {
            kept.push(entry);
        } else {
            gone.push(entry);
        }
    }
    let keep: BTreeSet<SandboxId> = kept.iter().map(|entry| entry.sandbox.clone()).collect();
    node.runtime.sweep(&keep).await.map_err(StartError::Sweep)?;
    let (adopted, lost) = (kept.len(), gone.len());
    for entry in gone {
        node.forget(&entry);
        node.events.publish(ended(entry));
    }
    for entry in kept {
        node.own(entry);
    }
    if adopted + lost > 0 {
        info!(
            adopted,
            lost, "took over {adopted} sandboxes; {lost} did not run any more"
        );
    }
    node.tasks.spawn(pass_on_exits(Arc::clone(node), exits));
    node.tasks.spawn(heartbeat(Arc::clone(node)));
    node.tasks.spawn(crate::sample::run(Arc::clone(node)));
    Ok(())
}

async fn adopt(node: &Inner, entry: &Entry) -> bool {
    let Some(record) = &entry.record else {
        return false;
    };
    if entry.boot != node.boot {
        return false;
    }
    match node.runtime.adopt(record).await {
        Ok(()) => restrict(node, entry).await,
        Err(AdoptError::Gone(_)) => false,
        Err(failed) => {
            let error = crate::node::chain(&failed);
            warn!(sandbox.id = %entry.sandbox, error, "cannot take a sandbox over");
            false
        }
    }
}

/// A sandbox whose rules cannot be set again is not kept: it would reach what it must not.
async fn restrict(node: &Inner, entry: &Entry) -> bool {
    match node
        .runtime
        .set_network(&entry.sandbox, &entry.network)
        .await
    {
        Ok(()) => true,
        Err(failed) => {
            let error = crate::node::chain(&failed);
            error!(sandbox.id = %entry.sandbox, error, "cannot set the rules of a sandbox again");
            false
        }
    }
}

/// How a sandbox that is not there any more is told of.
fn ended(entry: Entry) -> NodeEvent {
    let now = Timestamp::now();
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
        node.events.publish(NodeEvent::Heartbeat(node.info()));
    }
}
