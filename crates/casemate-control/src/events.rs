//! Lifecycle events: what is noted of a sandbox, and what its team reads.

use std::time::Duration;

use casemate_history::{EventKind, EventPage, HistoryError, LifecycleEvent};
use casemate_rpc::RunningSandbox;
use casemate_store::Sandbox;
use casemate_types::{EndReason, Kept, SandboxId, Timestamp, steady};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Control;
use crate::auth::TeamCaller;
use crate::recorder;
use crate::sandboxes::pause::Paused;

/// After this time events of all servers are there to be read, but for those that a slow database
/// holds up: three times what they are gathered for.
const SETTLED: Duration = recorder::GATHER.saturating_mul(3);

/// Which of a team's events are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEvents {
    pub sandbox: Option<SandboxId>,
    pub oldest_first: bool,
    pub offset: u32,
    pub limit: u32,
}

impl Control {
    /// One page of the caller's events. One sandbox's stay readable after its end.
    pub async fn list_events(
        &self,
        caller: &TeamCaller,
        ask: ListEvents,
    ) -> Result<Vec<LifecycleEvent>, HistoryError> {
        let page = EventPage {
            team: caller.team.id.clone(),
            sandbox: ask.sandbox,
            oldest_first: ask.oldest_first,
            until: self.events_until(),
            offset: ask.offset,
            rows_max: ask.limit,
        };
        self.history.events_read(&page).await
    }

    /// Until when all servers' events are written, where there are several: each writes its own a
    /// moment later, and who sees the last of a sandbox's events expects those before it.
    fn events_until(&self) -> Option<Timestamp> {
        self.shared()?;
        now().checked_sub(SETTLED).ok()
    }

    /// How long events are kept, in whole days.
    pub fn events_kept_days(&self) -> u32 {
        let days = self.config.retention.events.as_secs() / (24 * 3600);
        u32::try_from(days).unwrap_or(u32::MAX)
    }

    pub(crate) fn note_created(&self, row: &Sandbox) {
        let at = steady::to_wall(row.started_at);
        self.note(row, EventKind::Created, at, Value::Null);
    }

    pub(crate) fn note_end(&self, row: &Sandbox, reason: EndReason, at: Timestamp) {
        let data = json!({ "reason": reason });
        self.note(row, EventKind::Killed, steady::to_wall(at), data);
    }

    /// Of a sandbox without a row.
    pub(crate) fn note_orphan_end(&self, orphan: &RunningSandbox, at: Timestamp) {
        self.recorder.event(LifecycleEvent {
            id: Uuid::new_v4(),
            kind: EventKind::Killed,
            at: steady::to_wall(at),
            team: orphan.team.clone(),
            sandbox: orphan.sandbox.clone(),
            execution: execution(&orphan.sandbox, orphan.started_at),
            template: orphan.template.clone(),
            build: None,
            data: json!({ "reason": EndReason::Orphaned }),
        });
    }

    pub(crate) fn note_deadline(&self, row: &Sandbox, ends_at: Timestamp) {
        let data = json!({ "changed": "timeout", "end_at": steady::to_wall(ends_at) });
        self.note(row, EventKind::Updated, now(), data);
    }

    pub(crate) fn note_network(&self, row: &Sandbox) {
        let data = json!({ "changed": "network" });
        self.note(row, EventKind::Updated, now(), data);
    }

    /// `at`: when it was paused, or when what was kept became less.
    pub(crate) fn note_pause(&self, row: &Sandbox, paused: &Paused, at: Timestamp) {
        let data = json!({ "kept": paused.kept, "reason": paused.reason });
        self.note(row, EventKind::Paused, steady::to_wall(at), data);
    }

    pub(crate) fn note_snapshot(&self, row: &Sandbox, snapshot: &str) {
        let data = json!({ "snapshot": snapshot });
        self.note(row, EventKind::Checkpointed, now(), data);
    }

    /// The row is of the new run.
    pub(crate) fn note_resumed(&self, row: &Sandbox, from: Kept) {
        let at = steady::to_wall(row.started_at);
        self.note(row, EventKind::Resumed, at, json!({ "from": from }));
    }

    fn note(&self, row: &Sandbox, kind: EventKind, at: Timestamp, data: Value) {
        self.recorder.event(LifecycleEvent {
            id: Uuid::new_v4(),
            kind,
            at,
            team: row.team.clone(),
            sandbox: row.id.clone(),
            execution: execution(&row.id, row.started_at),
            template: row.template.clone(),
            build: Uuid::parse_str(&row.build.to_string()).ok(),
            data,
        });
    }
}

/// By the same clock as what a node says of its moments.
fn now() -> Timestamp {
    steady::to_wall(steady::now())
}

/// The id of one run. It is nowhere kept: a run is known by its sandbox and its start.
fn execution(sandbox: &SandboxId, started_at: Timestamp) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(sandbox.as_str());
    hash.update(started_at.as_microsecond().to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
