//! What a node tells the history of sandboxes: of its own, and no others.
//!
//! Samples and lines of logs say whose they are. Where machines join, that is the word of a machine that
//! may be in foreign hands, so the sandbox's row has to agree: it names this node and the same team. A
//! row that is not there yet, as of a create that is under way, is looked for once more.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use casemate_rpc::NodeEvent;
use casemate_store::{AliveSandbox, StoreError};
use casemate_types::{SandboxId, TeamId};
use tokio::time::Instant;

use super::record;
use crate::Control;
use crate::nodes::Node;

/// When it is looked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What may wait for that, and bytes of it.
const WAITING_MAX: usize = 4096;
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Vouched {
    /// By their rows.
    teams: HashMap<SandboxId, TeamId>,
    waiting: VecDeque<(Instant, NodeEvent)>,
    waiting_bytes: usize,
}

/// What a row says to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Its,
    Anothers,
    Nothing,
}

impl Vouched {
    /// These rows name the node.
    pub(super) fn learn(&mut self, rows: &[AliveSandbox]) {
        let teams = rows.iter().map(|row| (row.id.clone(), row.team.clone()));
        self.teams = teams.collect();
    }

    /// Gives the history what is the node's to tell.
    pub(super) async fn tell(
        &mut self,
        control: &Control,
        node: &Node,
        event: NodeEvent,
    ) -> Result<(), StoreError> {
        if control.shared().is_none() {
            record(control, event);
            return Ok(());
        }
        if let Some(unknown) = self.judge(control, node, event).await? {
            let bytes = cost(&unknown);
            if self.waiting.len() < WAITING_MAX && self.waiting_bytes + bytes <= WAITING_BYTES_MAX {
                self.waiting_bytes += bytes;
                let due = Instant::now() + AGAIN_AFTER;
                self.waiting.push_back((due, unknown));
            }
        }
        Ok(())
    }

    /// Returns when something is to be looked for again.
    pub(super) async fn next_due(&self) {
        match self.waiting.front() {
            Some((due, _)) => tokio::time::sleep_until(*due).await,
            None => std::future::pending().await,
        }
    }

    /// What still has no row then is told by nobody.
    pub(super) async fn tell_due(
        &mut self,
        control: &Control,
        node: &Node,
    ) -> Result<(), StoreError> {
        let now = Instant::now();
        while let Some((_, event)) = self.waiting.pop_front_if(|(due, _)| *due <= now) {
            self.waiting_bytes -= cost(&event);
            self.judge(control, node, event).await?;
        }
        Ok(())
    }

    /// What is left of it has no row.
    async fn judge(
        &mut self,
        control: &Control,
        node: &Node,
        event: NodeEvent,
    ) -> Result<Option<NodeEvent>, StoreError> {
        match event {
            NodeEvent::Samples(samples) => {
                let (mut its, mut unknown) = (Vec::new(), Vec::new());
                for sample in samples {
                    match self
                        .ask(control, node, &sample.sandbox, &sample.team)
                        .await?
                    {
                        Said::Its => its.push(sample),
                        Said::Nothing => unknown.push(sample),
                        Said::Anothers => {}
                    }
                }
                if !its.is_empty() {
                    record(control, NodeEvent::Samples(its));
                }
                Ok((!unknown.is_empty()).then_some(NodeEvent::Samples(unknown)))
            }
            NodeEvent::Log {
                ref sandbox,
                ref team,
                ..
            }
            | NodeEvent::MemoryFull {
                ref sandbox,
                ref team,
                ..
            } => match self.ask(control, node, sandbox, team).await? {
                Said::Its => {
                    record(control, event);
                    Ok(None)
                }
                Said::Nothing => Ok(Some(event)),
                Said::Anothers => Ok(None),
            },
            NodeEvent::Running(_)
            | NodeEvent::Paused(_)
            | NodeEvent::Synced
            | NodeEvent::Ended { .. }
            | NodeEvent::Heartbeat(_) => Ok(None),
        }
    }

    async fn ask(
        &mut self,
        control: &Control,
        node: &Node,
        sandbox: &SandboxId,
        team: &TeamId,
    ) -> Result<Said, StoreError> {
        if let Some(known) = self.teams.get(sandbox) {
            return Ok(match known == team {
                true => Said::Its,
                false => Said::Anothers,
            });
        }
        // Also of one that has ended: what it said last comes after the news of that.
        let Some(row) = control.store.sandbox_by_id(sandbox).await? else {
            return Ok(Said::Nothing);
        };
        if row.node != node.name || row.team != *team {
            tracing::debug!(
                node = node.name, sandbox.id = %sandbox,
                "node {} tells of sandbox {sandbox}, which is not its", node.name
            );
            return Ok(Said::Anothers);
        }
        self.teams.insert(sandbox.clone(), row.team);
        Ok(Said::Its)
    }
}

/// What an event takes while it waits, some bytes more or less.
pub(super) fn cost(event: &NodeEvent) -> usize {
    const EACH: usize = 256;
    EACH + match event {
        NodeEvent::Log { lines, .. } => lines.len(),
        NodeEvent::Samples(samples) => samples.len() * EACH,
        NodeEvent::Heartbeat(info) => info.templates.len() * EACH,
        NodeEvent::Running(_)
        | NodeEvent::Paused(_)
        | NodeEvent::Synced
        | NodeEvent::Ended { .. }
        | NodeEvent::MemoryFull { .. } => 0,
    }
}
