//! What runs against what should run (decision 4).
//!
//! ```text
//! list what should run ─▶ watch ─▶ Running… Synced ─▶ compare ─▶ follow events ─┐
//!        ▲                                                                      │
//!        └──────────── the channel ended, or something failed: wait ◀───────────┘
//! ```
//!
//! Where several servers share a store, one of them does this for each node, its keeper, as long as it
//! has the node's lease; the others see what the node has ([`observe`]), and take over. Who does not
//! reach the node does not have its lease: that nobody has it for long is how a lost node is known.
//!
//! The list is read *before* the watch begins: a row that was there then stands for a sandbox that
//! the node either names or has ended. It does the same after a crash as before it.

mod absence;
pub(crate) mod aging;
pub(crate) mod astray;
pub(crate) mod ending;
mod heard;
mod layers;
mod observe;
mod orphans;
pub(crate) mod records;
mod snapshots;
pub(crate) mod sync;
mod vouched;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use casemate_catalog::CatalogError;
use casemate_rpc::{NodeError, NodeEvent, PausedSandbox, RunningSandbox};
use casemate_store::StoreError;
use casemate_types::pauses::drawn;
use casemate_types::{EndReason, SandboxId, Timestamp, chain};
use tokio::sync::{mpsc, watch};

use crate::Control;
use crate::agent_log::Read;
use crate::artifacts;
use crate::nodes::Node;
use crate::servers::keeping;
use crate::tasks::TaskKind;
use absence::Absence;
use orphans::Orphans;
use vouched::Vouched;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often overdue sandboxes are searched.
const ROUND: Duration = Duration::from_secs(15);
/// How often files are searched that no snapshot wants.
const SNAPSHOT_ROUND: Duration = Duration::from_secs(600);
/// A node that has not named everything by then is taken for broken.
const SYNC_MAX: Duration = Duration::from_secs(30);
/// Sandboxes of one node, more than any has: what it says it has takes memory here.
const SANDBOXES_MAX: usize = 100_000;
/// The same of what else it tells before that, and bytes of it.
const WORDS_MAX: usize = 100_000;
const WORDS_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error("the node does not answer")]
    Node(#[from] NodeError),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the catalog failed")]
    Catalog(#[from] CatalogError),
    #[error("another node, {0}, answers in its place")]
    OtherNode(String),
    #[error("the node closed the watch")]
    WatchEnded,
    #[error("the node did not name what it runs within {SYNC_MAX:?}")]
    NeverSynced,
    #[error("the node was given up for lost")]
    GivenUp,
    #[error("the node says more than a node can have")]
    TooMuch,
}

impl ReconcileError {
    /// Whether the node was reached all the same.
    fn has_answered(&self) -> bool {
        match self {
            Self::Store(_) | Self::Catalog(_) | Self::GivenUp => true,
            Self::Node(_)
            | Self::OtherNode(_)
            | Self::WatchEnded
            | Self::NeverSynced
            | Self::TooMuch => false,
        }
    }
}

/// For ever.
pub(crate) async fn run(control: Arc<Control>, node: Arc<Node>) {
    let Some(shared) = control.shared() else {
        tokio::join!(
            follow_as(&control, &node, None),
            artifacts::run(&control, &node, None),
        );
        return;
    };
    let name = keeping::of_node(&node.name);
    let (held, keeps) = watch::channel(false);
    tokio::join!(
        keeping::keep(
            &control,
            shared.times,
            &name,
            &held,
            node.answers.subscribe()
        ),
        follow_as(&control, &node, Some(keeps.clone())),
        artifacts::run(&control, &node, Some(keeps.clone())),
        artifacts::paused::run(&control, &node, &keeps),
    );
}

/// For ever; `keeps` says whether this server is the node's keeper, which it always is where there
/// is no other.
async fn follow_as(
    control: &Arc<Control>,
    node: &Arc<Node>,
    mut keeps: Option<watch::Receiver<bool>>,
) {
    let mut orphans = Orphans::default();
    let mut pause = PAUSE_MIN;
    let mut absence = Absence::default();
    loop {
        let is_keeper = keeps
            .as_mut()
            .is_none_or(|keeps| *keeps.borrow_and_update());
        let following = async {
            match is_keeper {
                true => follow(control, node, &mut orphans, &mut pause).await,
                false => observe::observe(control, node, &mut orphans, &mut pause).await,
            }
        };
        let followed = tokio::select! {
            followed = following => followed,
            // The node is there as before; it is looked at anew all the same.
            () = changed(&mut keeps, is_keeper) => {
                let name = &node.name;
                tracing::info!(node = name, is_keeper = !is_keeper, "node {name} changes its keeper");
                continue;
            }
        };
        let error = match followed {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if !error.has_answered() {
            node.answers.send_replace(false);
        }
        control.disconnected(node);
        absence.tell(&node.name, &error, pause == PAUSE_MIN);
        let back = node.port.until_back();
        let _ = tokio::time::timeout(drawn(pause), back).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Returns once it is not as it was.
async fn changed(keeps: &mut Option<watch::Receiver<bool>>, was: bool) {
    let changed = match keeps {
        Some(keeps) => keeps.wait_for(|is| *is != was).await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}

/// Kept files and layers that nothing needs; beside everything else. Of several servers one does it.
pub(crate) fn drop_unwanted_soon(control: &Arc<Control>) {
    if control.is_janitor() && control.unwanted.begin() {
        let looking = Arc::clone(control);
        control.tasks.spawn(TaskKind::Cleanup, async move {
            while looking.unwanted.is_wanted() {
                for node in looking.nodes.connected() {
                    snapshots::drop_unwanted_or_warn(&looking, &node).await;
                    layers::drop_unwanted_or_warn(&looking, &node).await;
                }
                if looking.tasks.stopping() {
                    break;
                }
            }
        });
    }
}

/// One look at a time; whoever wants one while one is under way gets another one behind it.
#[derive(Default)]
pub(crate) struct Unwanted(Mutex<Looking>);

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Looking {
    #[default]
    No,
    Now,
    NowAndAgain,
}

impl Unwanted {
    /// Whether somebody has to begin.
    fn begin(&self) -> bool {
        let mut looking = self.lock();
        let was = *looking;
        *looking = Looking::NowAndAgain;
        was == Looking::No
    }

    /// Whether one more look is wanted; it begins.
    fn is_wanted(&self) -> bool {
        let mut looking = self.lock();
        *looking = match *looking {
            Looking::NowAndAgain => Looking::Now,
            Looking::Now | Looking::No => Looking::No,
        };
        *looking == Looking::Now
    }

    fn lock(&self) -> MutexGuard<'_, Looking> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

async fn follow(
    control: &Arc<Control>,
    node: &Arc<Node>,
    orphans: &mut Orphans,
    pause: &mut Duration,
) -> Result<std::convert::Infallible, ReconcileError> {
    let info = node.port.info().await?;
    if info.node != node.name {
        return Err(ReconcileError::OtherNode(info.node));
    }
    let joined = control.joined(node).await?;
    let should_run = control.store.sandbox_list_alive(Some(&node.name)).await?;
    let warm = control.warm.ready_at(&node.name);
    let mut events = node.port.watch().await?;
    let synced = tokio::time::timeout(SYNC_MAX, until_synced(&mut events));
    let (there, Words(words)) = synced.await.map_err(|_| ReconcileError::NeverSynced)??;
    control.see_all(node, &there);
    let mut vouched = Vouched::default();
    vouched.learn(&should_run);
    for word in words {
        handle(control, orphans, &mut vouched, node, word).await?;
    }
    let is_lost = joined.as_ref().is_some_and(|node| node.lost_at.is_some());
    sync::compare(control, orphans, node, &should_run, &there, is_lost).await?;
    for gone in warm.iter().filter(|id| !there.has(id)) {
        control.warm.forget(gone);
    }
    let generation = control.let_return(node, joined).await?;
    control.heard_from(node, info).await?;
    control.connected(node);
    *pause = PAUSE_MIN;
    let (running, paused, name) = (there.running.len(), there.paused.len(), &node.name);
    tracing::info!(node = name, running, paused, "node {name} is connected");
    let mut round = tokio::time::interval(ROUND);
    let mut snapshots = tokio::time::interval(SNAPSHOT_ROUND);
    loop {
        tokio::select! {
            event = events.recv() => {
                let event = event.ok_or(ReconcileError::WatchEnded)?;
                handle(control, orphans, &mut vouched, node, event).await?;
            }
            () = vouched.next_due() => vouched.tell_due(control, node).await?,
            () = orphans.next_due() => orphans.end_overdue(control, node).await?,
            // What it has is compared anew before it returns.
            () = node.given_up_after(generation) => return Err(ReconcileError::GivenUp),
            _ = snapshots.tick() => drop_unwanted_soon(control),
            _ = round.tick() => {
                let alive = control.store.sandbox_list_alive(Some(&node.name)).await?;
                vouched.learn(&alive);
                sync::end_expired(control, &node.name, &alive);
                astray::end_known(control, node, &alive).await?;
            }
        }
    }
}

/// What a node has.
#[derive(Default)]
struct There {
    running: Vec<RunningSandbox>,
    paused: Vec<PausedSandbox>,
}

impl There {
    fn has(&self, id: &SandboxId) -> bool {
        self.running.iter().any(|one| one.sandbox == *id)
    }
}

/// What was told beside that, in its order.
struct Words(Vec<NodeEvent>);

async fn until_synced(
    events: &mut mpsc::Receiver<NodeEvent>,
) -> Result<(There, Words), ReconcileError> {
    let (mut running, mut paused) = (HashMap::new(), HashMap::new());
    let (mut words, mut bytes) = (Vec::new(), 0);
    while let Some(event) = events.recv().await {
        match event {
            NodeEvent::Running(sandbox) => {
                paused.remove(&sandbox.sandbox);
                running.insert(sandbox.sandbox.clone(), sandbox);
            }
            NodeEvent::Paused(sandbox) => {
                running.remove(&sandbox.sandbox);
                paused.insert(sandbox.sandbox.clone(), sandbox);
            }
            NodeEvent::Synced => {
                let there = There {
                    running: running.into_values().collect(),
                    paused: paused.into_values().collect(),
                };
                return Ok((there, Words(words)));
            }
            NodeEvent::Ended { ref sandbox, .. } => {
                running.remove(sandbox);
                paused.remove(sandbox);
                words.push(event);
            }
            NodeEvent::Heartbeat(_)
            | NodeEvent::Samples(_)
            | NodeEvent::Log { .. }
            | NodeEvent::MemoryFull { .. } => {
                bytes += vouched::cost(&event);
                words.push(event);
            }
        }
        if running.len() + paused.len() > SANDBOXES_MAX
            || words.len() > WORDS_MAX
            || bytes > WORDS_BYTES_MAX
        {
            return Err(ReconcileError::TooMuch);
        }
    }
    Err(ReconcileError::WatchEnded)
}

async fn handle(
    control: &Arc<Control>,
    orphans: &mut Orphans,
    vouched: &mut Vouched,
    node: &Node,
    event: NodeEvent,
) -> Result<(), ReconcileError> {
    see(control, node, &event)?;
    match event {
        NodeEvent::Running(sandbox) => sync::judge(control, orphans, node, &sandbox).await?,
        NodeEvent::Paused(sandbox) => sync::judge_paused(control, orphans, node, &sandbox).await?,
        NodeEvent::Ended {
            sandbox,
            reason,
            at,
        } => {
            orphans.forget(&sandbox);
            let told = control.note_told_end(&node.name, &sandbox, reason, at);
            told.await?;
            let is_noted = control.recent.is_end_noted(&sandbox, &node.name);
            if control.shared().is_some() && !is_noted {
                control.note_ended_later(node.name.clone(), sandbox, reason, at);
            }
        }
        NodeEvent::Heartbeat(info) => control.heard_from(node, *info).await?,
        NodeEvent::Samples(_) | NodeEvent::Log { .. } | NodeEvent::MemoryFull { .. } => {
            vouched.tell(control, node, event).await?;
        }
        // Said once, at the start.
        NodeEvent::Synced => {}
    }
    Ok(())
}

/// Takes in what happens at a node, if that has no more than a node can have.
fn see(control: &Control, node: &Node, event: &NodeEvent) -> Result<(), ReconcileError> {
    control.see(node, event);
    match node.there.count() > SANDBOXES_MAX {
        true => Err(ReconcileError::TooMuch),
        false => Ok(()),
    }
}

/// What only the history is told of.
fn record(control: &Control, event: NodeEvent) {
    match event {
        NodeEvent::Samples(samples) => control.recorder.samples(samples),
        NodeEvent::Log {
            sandbox,
            team,
            since,
            at,
            lines,
        } => control.recorder.log_read(&Read {
            sandbox: &sandbox,
            team: &team,
            since,
            at,
            lines: &lines,
        }),
        NodeEvent::MemoryFull {
            sandbox,
            team,
            at,
            processes,
        } => {
            control.recorder.memory_full(&sandbox, &team, at, processes);
        }
        NodeEvent::Running(_)
        | NodeEvent::Paused(_)
        | NodeEvent::Synced
        | NodeEvent::Ended { .. }
        | NodeEvent::Heartbeat(_) => {}
    }
}

impl Control {
    /// What the store says of a node, where nodes join.
    async fn joined(&self, node: &Node) -> Result<Option<casemate_store::Node>, StoreError> {
        match self.shared() {
            Some(_) => self.store.node_by_id(&node.name).await,
            None => Ok(None),
        }
    }

    /// A node that was lost is there again: what it has was compared with its rows. The generation in
    /// which it is there.
    async fn let_return(
        &self,
        node: &Node,
        joined: Option<casemate_store::Node>,
    ) -> Result<u64, ReconcileError> {
        let Some(joined) = joined else {
            // Nobody gives up what did not join.
            return Ok(u64::MAX);
        };
        if joined.lost_at.is_some() {
            let returned = self.store.node_return(&node.name, joined.generation).await;
            match returned {
                Ok(()) => {}
                // It was given up once more: the comparison was too early.
                Err(StoreError::Conflict { .. }) => return Err(ReconcileError::GivenUp),
                Err(error) => return Err(error.into()),
            }
            node.note_return(joined.generation);
            tracing::info!(node = node.name, "node {} has returned", node.name);
        }
        Ok(joined.generation)
    }

    /// Looks again for the row of one that ended: another server may write it just now.
    fn note_ended_later(
        self: &Arc<Self>,
        node: String,
        sandbox: SandboxId,
        reason: EndReason,
        at: Timestamp,
    ) {
        let control = Arc::clone(self);
        self.tasks.spawn(TaskKind::Reconciler, async move {
            tokio::time::sleep(control.config.row_grace).await;
            if let Err(error) = control.note_told_end(&node, &sandbox, reason, at).await {
                tracing::warn!(
                    sandbox.id = %sandbox, error = chain(&error),
                    "could not note the end of sandbox {sandbox} yet"
                );
            }
        });
    }
}

/// What it means that a sandbox is not there any more.
fn reason_gone(ends_at: Timestamp, now: Timestamp) -> EndReason {
    if ends_at <= now {
        EndReason::Expired
    } else {
        EndReason::Lost
    }
}
