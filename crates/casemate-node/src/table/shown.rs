//! What others are told of a node's sandboxes.

use std::collections::HashSet;

use casemate_rpc::{Located, NodeEvent, PausedSandbox, PolicyDigest, RunningSandbox};
use casemate_types::SandboxId;

use super::{Row, Sampled};
use crate::journal::Entry;
use crate::node::Inner;

impl Inner {
    /// Whether it is here and somebody's, and how traffic comes in.
    pub(crate) fn located(&self, sandbox: &SandboxId) -> Option<Located> {
        match self.lock().sandboxes.get(sandbox)? {
            Row::Running { ending: true, .. } | Row::Booting { .. } => None,
            Row::Running { shown, .. } if shown.warm => None,
            Row::Running {
                shown,
                rest,
                entrance,
                ..
            } => Some(Located {
                asleep: rest.is_some(),
                started_at: shown.started_at,
                entrance: entrance.as_deref().cloned(),
            }),
        }
    }

    /// What there is, for whoever begins to listen.
    pub(crate) fn first_events(&self) -> Vec<NodeEvent> {
        let info = NodeEvent::Heartbeat(Box::new(self.info()));
        let running = self.running().into_iter().map(NodeEvent::Running);
        let paused = self.paused().into_iter().map(NodeEvent::Paused);
        [info].into_iter().chain(running).chain(paused).collect()
    }

    pub(crate) fn running(&self) -> Vec<RunningSandbox> {
        let shown = |row: &Row| match row {
            Row::Running {
                shown, rest: None, ..
            } => Some(shown.clone()),
            Row::Running { .. } | Row::Booting { .. } => None,
        };
        self.lock().sandboxes.values().filter_map(shown).collect()
    }

    pub(crate) fn paused(&self) -> Vec<PausedSandbox> {
        let table = self.lock();
        table.rests().map(|(_, rest)| rest.shown.clone()).collect()
    }

    /// Those among these that rest.
    pub(crate) fn resting(&self) -> HashSet<SandboxId> {
        self.lock().rests().map(|(id, _)| id.clone()).collect()
    }

    /// Whether no sandbox is there, running or being made.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().sandboxes.is_empty()
    }

    /// Those that run and are wanted.
    pub(crate) fn sampled(&self, is_wanted: impl Fn(&SandboxId) -> bool) -> Vec<Sampled> {
        let sampled = |row: &Row| match row {
            Row::Running { rest: Some(_), .. } => None,
            // Nobody's yet.
            Row::Running { shown, .. } if shown.warm => None,
            Row::Running { shown, .. } if !is_wanted(&shown.sandbox) => None,
            Row::Running {
                resources, shown, ..
            } => Some(Sampled {
                sandbox: shown.sandbox.clone(),
                team: shown.team.clone(),
                resources: *resources,
                started_at: shown.started_at,
            }),
            Row::Booting { .. } => None,
        };
        self.lock().sandboxes.values().filter_map(sampled).collect()
    }
}

pub(super) fn running(entry: &Entry) -> RunningSandbox {
    RunningSandbox {
        sandbox: entry.sandbox.clone(),
        team: entry.team.clone(),
        template: entry.template.clone(),
        started_at: entry.started_at,
        ends_at: entry.ends_at,
        on_timeout: entry.on_timeout,
        recorded: entry.recorded,
        warm: entry.warm,
        creator: entry.creator.clone(),
        network: Some(PolicyDigest::of(&entry.network)),
    }
}

pub(super) fn paused(entry: &Entry) -> Option<PausedSandbox> {
    let pause = entry.pause.as_ref()?;
    Some(PausedSandbox {
        sandbox: entry.sandbox.clone(),
        team: entry.team.clone(),
        template: entry.template.clone(),
        started_at: entry.started_at,
        at: pause.at,
        kept: pause.kept,
        reason: pause.reason,
        recorded: entry.recorded,
        creator: entry.creator.clone(),
    })
}
