//! The table of sandboxes: what the node knows of each without asking its task, and the events that
//! tell of its changes.

mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use casemate_rpc::{NodeError, NodeEvent, PausedSandbox, PolicyDigest, RunningSandbox};
use casemate_runtime::Seen;
use casemate_types::{
    Entrance, Kept, PauseReason, Portable, Resources, SandboxId, SnapshotId, TeamId, Timestamp,
    steady,
};
use tokio::sync::mpsc;
use tracing::warn;

use crate::cache::{self, Cache};
use crate::journal::Entry;
use crate::node::Inner;
use crate::offer::Offer;
use crate::sandbox::{COMMANDS_MAX, Command, own};
use shown::{paused, running};

const MIB: u64 = 1024 * 1024;

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) sandboxes: BTreeMap<SandboxId, Row>,
    pub(crate) memory_promised_bytes: u64,
    pub(crate) offer: Offer,
    /// What is being removed.
    pub(crate) leaving: BTreeSet<Portable>,
    /// What is being packed or comes, and how often.
    pub(crate) carried: BTreeMap<Portable, usize>,
    pub(crate) cache: Cache,
}

pub(crate) enum Row {
    /// Being made: it holds its place.
    Booting {
        resources: Resources,
        /// Names of those that it lies over, but for the operator's.
        layers: Vec<String>,
        /// What it begins with.
        files: Option<SnapshotId>,
        warm: bool,
        exited: bool,
    },
    Running {
        resources: Resources,
        layers: Vec<String>,
        shown: RunningSandbox,
        /// It rests.
        rest: Option<Box<Rest>>,
        /// Something ends it: it takes no more orders.
        ending: bool,
        /// When its log was read last, and before that its start; by the wall clock, as what is in
        /// the log.
        log_read_at: Timestamp,
        /// As in its journal entry.
        memory_kills: Option<u64>,
        /// As in its journal entry.
        entrance: Option<Box<Entrance>>,
        commands: mpsc::Sender<Command>,
    },
}

/// What a paused sandbox is to the node.
#[derive(Clone)]
pub(crate) struct Rest {
    pub(crate) shown: PausedSandbox,
    /// Held by its processes; nothing where only files are kept.
    pub(crate) memory_bytes: u64,
}

impl Row {
    /// It takes a place: it is not paused.
    pub(crate) fn is_awake(&self) -> bool {
        !matches!(self, Self::Running { rest: Some(_), .. })
    }

    /// It waits for being claimed, or is being made for that.
    pub(crate) fn is_warm(&self) -> bool {
        match self {
            Self::Booting { warm, .. } => *warm,
            Self::Running { shown, .. } => shown.warm,
        }
    }

    fn resources(&self) -> &Resources {
        match self {
            Self::Booting { resources, .. } | Self::Running { resources, .. } => resources,
        }
    }

    pub(crate) fn layers(&self) -> &[String] {
        match self {
            Self::Booting { layers, .. } | Self::Running { layers, .. } => layers,
        }
    }

    pub(crate) fn layers_mut(&mut self) -> &mut Vec<String> {
        match self {
            Self::Booting { layers, .. } | Self::Running { layers, .. } => layers,
        }
    }

    pub(crate) fn vcpus(&self) -> u32 {
        if self.is_awake() {
            self.resources().vcpus
        } else {
            0
        }
    }
}

impl Table {
    /// Those that run, or are being made.
    pub(crate) fn awake(&self) -> u32 {
        let awake = self.sandboxes.values().filter(|row| row.is_awake());
        u32::try_from(awake.count()).unwrap_or(u32::MAX)
    }

    /// Those among them that wait for being claimed.
    pub(crate) fn warm(&self) -> u32 {
        let warm = self.sandboxes.values().filter(|row| row.is_warm());
        u32::try_from(warm.count()).unwrap_or(u32::MAX)
    }

    /// The sum of their memory limits.
    pub(crate) fn memory_warm_bytes(&self) -> u64 {
        let warm = self.sandboxes.values().filter(|row| row.is_warm());
        warm.map(memory_bytes_of).sum()
    }

    /// Of those that wait for being claimed the one that does for longest.
    pub(crate) fn longest_warm(&self) -> Option<(SandboxId, mpsc::Sender<Command>)> {
        let warm = self.sandboxes.values().filter_map(|row| match row {
            Row::Running {
                shown,
                ending: false,
                commands,
                ..
            } if shown.warm => Some((shown, commands)),
            Row::Running { .. } | Row::Booting { .. } => None,
        });
        let first = warm.min_by_key(|(shown, _)| shown.started_at);
        first.map(|(shown, commands)| (shown.sandbox.clone(), commands.clone()))
    }

    pub(crate) fn rests(&self) -> impl Iterator<Item = (&SandboxId, &Rest)> {
        self.sandboxes.iter().filter_map(|(id, row)| match row {
            Row::Running { rest, .. } => rest.as_deref().map(|rest| (id, rest)),
            Row::Booting { .. } => None,
        })
    }
}

/// What is to be known of a sandbox that samples are taken of.
pub(crate) struct Sampled {
    pub(crate) sandbox: SandboxId,
    pub(crate) team: TeamId,
    pub(crate) resources: Resources,
    pub(crate) started_at: Timestamp,
}

impl Inner {
    /// Puts a sandbox that runs into the table and gives it its task.
    pub(crate) fn own(self: &Arc<Self>, entry: Entry) {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let shown = running(&entry);
        let row = Row::Running {
            resources: entry.resources,
            layers: entry.layers.clone(),
            shown: shown.clone(),
            rest: None,
            ending: false,
            log_read_at: steady::to_wall(entry.started_at),
            memory_kills: entry.memory_kills,
            entrance: entry.entrance.clone().map(Box::new),
            commands,
        };
        let former = {
            let mut table = self.lock();
            let former = table.sandboxes.insert(entry.sandbox.clone(), row);
            if former.is_none() {
                table.memory_promised_bytes += memory_bytes(&entry.resources);
            }
            former
        };
        if matches!(former, Some(Row::Booting { exited: true, .. })) {
            self.exited(&entry.sandbox);
        }
        self.events.publish(NodeEvent::Running(shown));
        self.tasks.spawn(own(Arc::clone(self), entry, inbox));
    }

    /// The same of one that rests.
    pub(crate) fn own_paused(self: &Arc<Self>, entry: Entry, memory_bytes: u64) {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let rest = paused(&entry).map(|shown| {
            Box::new(Rest {
                shown,
                memory_bytes,
            })
        });
        let row = Row::Running {
            resources: entry.resources,
            layers: entry.layers.clone(),
            shown: running(&entry),
            rest,
            ending: false,
            log_read_at: steady::to_wall(entry.started_at),
            memory_kills: entry.memory_kills,
            entrance: entry.entrance.clone().map(Box::new),
            commands,
        };
        self.lock().sandboxes.insert(entry.sandbox.clone(), row);
        if let Some(shown) = paused(&entry) {
            self.events.publish(NodeEvent::Paused(shown));
        }
        self.tasks.spawn(own(Arc::clone(self), entry, inbox));
    }

    /// It is somebody's from now on, as its entry says.
    pub(crate) fn note_claimed(&self, entry: &Entry) {
        let running = running(entry);
        if let Some(Row::Running {
            shown, entrance, ..
        }) = self.lock().sandboxes.get_mut(&entry.sandbox)
        {
            *shown = running.clone();
            *entrance = entry.entrance.clone().map(Box::new);
        }
        self.events.publish(NodeEvent::Running(running));
    }

    /// It rests from now on, as its entry says.
    pub(crate) fn note_paused(&self, entry: &Entry, memory_bytes: u64) {
        let Some(shown) = paused(entry) else { return };
        {
            let mut table = self.lock();
            let table = &mut *table;
            if let Some(row) = table.sandboxes.get_mut(&entry.sandbox) {
                if row.is_awake() {
                    table.memory_promised_bytes -= memory_bytes_of(row);
                }
                if let Row::Running { rest, .. } = row {
                    let shown = shown.clone();
                    *rest = Some(Box::new(Rest {
                        shown,
                        memory_bytes,
                    }));
                }
            }
        }
        self.events.publish(NodeEvent::Paused(shown));
    }

    /// It runs from now on, as its entry says. Its place was taken by [`Inner::admit_back`], and may
    /// have been given up since by a pause that kept less.
    pub(crate) fn note_resumed(&self, entry: &Entry) {
        let running = running(entry);
        {
            let mut table = self.lock();
            let table = &mut *table;
            if let Some(row) = table.sandboxes.get_mut(&entry.sandbox) {
                if !row.is_awake() {
                    table.memory_promised_bytes += memory_bytes_of(row);
                }
                if let Row::Running {
                    shown,
                    memory_kills,
                    rest,
                    layers,
                    entrance,
                    ..
                } = row
                {
                    *rest = None;
                    *entrance = entry.entrance.clone().map(Box::new);
                    layers.clone_from(&entry.layers);
                    *shown = running.clone();
                    *memory_kills = entry.memory_kills;
                }
            }
        }
        self.events.publish(NodeEvent::Running(running));
    }

    /// Gives a paused sandbox its place among those that run; what it was, to be put back.
    pub(crate) fn admit_back(
        &self,
        sandbox: &SandboxId,
        from: Kept,
    ) -> Result<Box<Rest>, NodeError> {
        let mut table = self.lock();
        let gone = || NodeError::NotFound(sandbox.clone());
        let row = table.sandboxes.get(sandbox).ok_or_else(gone)?;
        let resources = *row.resources();
        self.admit(&table, &resources, from == Kept::Memory)?;
        let row = table.sandboxes.get_mut(sandbox).ok_or_else(gone)?;
        let Row::Running { rest, .. } = row else {
            return Err(gone());
        };
        let rest = rest
            .take()
            .ok_or_else(|| NodeError::Exists(sandbox.clone()))?;
        table.memory_promised_bytes += memory_bytes(&resources);
        Ok(rest)
    }

    /// It did not go on: it rests as before, as its entry says.
    pub(crate) fn put_back(&self, entry: &Entry, before: Box<Rest>) {
        {
            let mut table = self.lock();
            let table = &mut *table;
            if let Some(row) = table.sandboxes.get_mut(&entry.sandbox) {
                if row.is_awake() {
                    table.memory_promised_bytes -= memory_bytes_of(row);
                }
                if let Row::Running { rest, layers, .. } = row {
                    layers.clone_from(&entry.layers);
                    *rest = Some(before.clone());
                }
            }
        }
        // Whoever looked in between saw one that runs.
        self.events.publish(NodeEvent::Paused(before.shown));
    }

    /// Lets those that rested for longest give up their processes until the others are no more, and
    /// hold no more memory, than they may.
    pub(crate) fn bound_paused(&self) {
        let table = self.lock();
        let mut held: Vec<_> = table
            .rests()
            .filter(|(_, rest)| rest.shown.kept == Kept::Memory)
            .map(|(id, rest)| (rest.shown.at, rest.memory_bytes, id))
            .collect();
        held.sort();
        let mut sum: u64 = held.iter().map(|(_, bytes, _)| bytes).sum();
        let mut left = held.len();
        for (_, bytes, id) in held {
            if sum <= self.config.paused_memory_bytes && left <= self.config.paused_max {
                return;
            }
            let Some(Row::Running { commands, .. }) = table.sandboxes.get(id) else {
                continue;
            };
            // One that is busy is passed over; the next pause looks again.
            let give_up = Command::GiveUpProcesses(PauseReason::MemoryBound);
            if commands.try_send(give_up).is_ok() {
                sum -= bytes;
                left -= 1;
            }
        }
    }

    pub(crate) fn note_deadline(&self, sandbox: &SandboxId, at: Timestamp) {
        if let Some(Row::Running { shown, .. }) = self.lock().sandboxes.get_mut(sandbox) {
            shown.ends_at = at;
        }
    }

    pub(crate) fn note_network(&self, entry: &Entry) {
        if let Some(Row::Running { shown, .. }) = self.lock().sandboxes.get_mut(&entry.sandbox) {
            shown.network = Some(PolicyDigest::of(&entry.network));
        }
    }

    pub(crate) fn note_recorded(&self, sandbox: &SandboxId) {
        if let Some(Row::Running { shown, rest, .. }) = self.lock().sandboxes.get_mut(sandbox) {
            shown.recorded = true;
            if let Some(rest) = rest {
                rest.shown.recorded = true;
            }
        }
    }

    pub(crate) fn note_memory_kills(&self, sandbox: &SandboxId, counted: u64) {
        if let Some(Row::Running { memory_kills, .. }) = self.lock().sandboxes.get_mut(sandbox) {
            *memory_kills = Some(counted);
        }
    }

    /// Lets the tasks of those whose count is not the one that was told tell of it.
    pub(crate) fn pass_on_memory_kills(&self, seen: &[Seen]) {
        let table = self.lock();
        for one in seen {
            let Some(Row::Running {
                memory_kills,
                commands,
                ..
            }) = table.sandboxes.get(&one.sandbox)
            else {
                continue;
            };
            if *memory_kills != Some(one.memory_kills) {
                // Where there is no room the next look passes it on.
                let _ = commands.try_send(Command::MemoryKills(one.memory_kills));
            }
        }
    }

    pub(crate) fn note_ending(&self, sandbox: &SandboxId) {
        if let Some(Row::Running { ending, .. }) = self.lock().sandboxes.get_mut(sandbox) {
            *ending = true;
        }
    }

    /// Its log is read now: whose it is, and when that was done before.
    pub(crate) fn note_log_read(
        &self,
        sandbox: &SandboxId,
        at: Timestamp,
    ) -> Option<(TeamId, Timestamp)> {
        match self.lock().sandboxes.get_mut(sandbox)? {
            Row::Running {
                shown, log_read_at, ..
            } => {
                let before = std::mem::replace(log_read_at, at);
                // The wall clock may have been set back.
                Some((shown.team.clone(), before.min(at)))
            }
            Row::Booting { .. } => None,
        }
    }

    pub(crate) fn exited(&self, sandbox: &SandboxId) {
        match self.lock().sandboxes.get_mut(sandbox) {
            // Control gives orders for one sandbox one after the other, so there is room.
            Some(Row::Running { commands, .. }) => {
                let sent = commands.try_send(Command::Exited);
                if let Err(error) = sent {
                    warn!(sandbox.id = %sandbox, %error, "a sandbox's end is noted late");
                }
            }
            // It ended between its readiness and its task.
            Some(Row::Booting { exited, .. }) => *exited = true,
            None => {}
        }
    }

    pub(crate) fn release(&self, sandbox: &SandboxId) {
        let removed = {
            let mut table = self.lock();
            let removed = table.sandboxes.remove(sandbox);
            if let Some(row) = removed.as_ref().filter(|row| row.is_awake()) {
                table.memory_promised_bytes -= memory_bytes_of(row);
            }
            removed
        };
        if let Some(row) = removed {
            // Until now.
            self.note_use(cache::portables(row.layers(), None));
        }
    }

    /// Whether it rests, and with what.
    pub(crate) fn rests_with(&self, sandbox: &SandboxId) -> Option<Kept> {
        match self.lock().sandboxes.get(sandbox)? {
            Row::Running { rest, .. } => rest.as_ref().map(|rest| rest.shown.kept),
            Row::Booting { .. } => None,
        }
    }
}

pub(crate) fn memory_bytes(resources: &Resources) -> u64 {
    u64::from(resources.memory_mib) * MIB
}

fn memory_bytes_of(row: &Row) -> u64 {
    memory_bytes(row.resources())
}
