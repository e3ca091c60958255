//! What a team reads of its sandboxes' logs, and the lines that the platform itself adds.

use std::collections::BTreeMap;
use std::time::Duration;

use casemate_history::{
    EventKind, HistoryError, LifecycleEvent, LogDirection, LogEntry, LogLevel, LogLine, LogQuery,
};
use casemate_types::{SandboxId, Timestamp};
use serde_json::Value;

use crate::Control;
use crate::auth::TeamCaller;

/// How far back logs are read, whatever is kept.
const WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);
/// Entries of one answer.
pub const LOG_ENTRIES_MAX: u32 = 10_000;
/// Nodes' clocks may be ahead of ours by this much.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// Which entries are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLogs {
    /// Forward from it on, backward until before it; `None` is the oldest, or now.
    pub cursor: Option<Timestamp>,
    pub direction: LogDirection,
    pub level_min: LogLevel,
    pub search: Option<String>,
    /// Cut at [`LOG_ENTRIES_MAX`].
    pub limit: u32,
}

impl Control {
    /// A sandbox's log; nothing of one that nobody knows or that is another team's. It stays
    /// readable after the sandbox's end.
    pub async fn read_logs(
        &self,
        caller: &TeamCaller,
        id: &SandboxId,
        ask: ReadLogs,
    ) -> Result<Vec<LogEntry>, HistoryError> {
        let (from, before) = window(Timestamp::now(), ask.cursor, ask.direction);
        let query = LogQuery {
            team: caller.team.id.clone(),
            sandbox: id.clone(),
            from,
            before,
            direction: ask.direction,
            level_min: ask.level_min,
            search: ask.search,
            rows_max: ask.limit.min(LOG_ENTRIES_MAX),
        };
        self.history.logs_read(&query).await
    }
}

fn window(
    now: Timestamp,
    cursor: Option<Timestamp>,
    direction: LogDirection,
) -> (Timestamp, Timestamp) {
    let ago = |time: Timestamp| time.checked_sub(WINDOW).unwrap_or(Timestamp::UNIX_EPOCH);
    let oldest = ago(now);
    match direction {
        LogDirection::Forward => {
            let from = cursor.unwrap_or(oldest).max(oldest);
            (from, from.checked_add(WINDOW).unwrap_or(Timestamp::MAX))
        }
        LogDirection::Backward => {
            let before = cursor.unwrap_or(now + CLOCK_SLACK);
            (ago(before).max(oldest), before)
        }
    }
}

/// An event as a line of its sandbox's log.
pub(crate) fn line_of(event: &LifecycleEvent) -> LogLine {
    let said = |name: &str| event.data.get(name).and_then(Value::as_str);
    let (level, message) = match (event.kind, said("changed"), said("reason")) {
        (EventKind::Created, ..) => (LogLevel::Info, "Sandbox created".to_owned()),
        (EventKind::Updated, Some(what), _) => (LogLevel::Info, format!("Sandbox {what} changed")),
        (EventKind::Updated, None, _) => (LogLevel::Info, "Sandbox changed".to_owned()),
        (EventKind::Paused, _, Some(reason @ ("memory_bound" | "processes_lost"))) => (
            LogLevel::Warn,
            format!("Sandbox paused, files only: {reason}"),
        ),
        (EventKind::Paused, _, Some(reason)) => {
            (LogLevel::Info, format!("Sandbox paused: {reason}"))
        }
        (EventKind::Paused, _, None) => (LogLevel::Info, "Sandbox paused".to_owned()),
        (EventKind::Resumed, ..) => (LogLevel::Info, "Sandbox resumed".to_owned()),
        (EventKind::Checkpointed, ..) => (LogLevel::Info, "Snapshot taken".to_owned()),
        (EventKind::Killed, _, Some(reason @ ("exited" | "lost" | "orphaned"))) => {
            (LogLevel::Warn, format!("Sandbox ended: {reason}"))
        }
        (EventKind::Killed, _, Some(reason)) => {
            (LogLevel::Info, format!("Sandbox ended: {reason}"))
        }
        (EventKind::Killed, _, None) => (LogLevel::Info, "Sandbox ended".to_owned()),
    };
    let mut fields = BTreeMap::from([("logger".to_owned(), "platform".to_owned())]);
    for (name, value) in event.data.as_object().into_iter().flatten() {
        if let Some(text) = value.as_str() {
            fields.insert(name.clone(), text.to_owned());
        }
    }
    LogLine {
        sandbox: event.sandbox.clone(),
        team: event.team.clone(),
        entry: LogEntry {
            at: event.at,
            level,
            message,
            fields,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_a_week_is_read_and_nothing_older() {
        let now = at(30);
        let check = |cursor: Option<i64>, direction, expected: (i64, i64)| {
            let found = window(now, cursor.map(at), direction);
            assert_eq!(
                found,
                (at(expected.0), at(expected.1)),
                "{cursor:?} {direction:?}"
            );
        };
        check(None, LogDirection::Forward, (23, 30));
        check(Some(5), LogDirection::Forward, (23, 30));
        check(Some(29), LogDirection::Forward, (29, 36));
        check(Some(28), LogDirection::Backward, (23, 28));
        check(Some(40), LogDirection::Backward, (33, 40));
        let (from, before) = window(now, None, LogDirection::Backward);
        assert!(from >= at(23) && before > now);
    }

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * 24 * 3600).unwrap()
    }
}
