//! Rows for tests of one adapter.

use std::time::Duration;

use casemate_history::{
    EventKind, LifecycleEvent, LogDirection, LogEntry, LogLevel, LogLine, LogQuery, Range,
    TeamPoint,
};
use casemate_types::{Sample, SandboxId, TeamId, Timestamp, Usage};

pub const SECOND: Duration = Duration::from_secs(1);

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub fn all() -> Range {
    Range {
        from: at(0),
        to: at(1_000_000),
    }
}

pub fn team() -> TeamId {
    TeamId::parse(&uuid::Uuid::new_v4().to_string()).unwrap()
}

pub fn sample(team: &TeamId, sandbox: &SandboxId, seconds: i64) -> Sample {
    Sample {
        sandbox: sandbox.clone(),
        team: team.clone(),
        at: at(seconds),
        usage: Usage {
            disk_used_bytes: seconds.unsigned_abs(),
            ..Usage::default()
        },
    }
}

pub fn event(team: &TeamId, sandbox: &SandboxId, seconds: i64) -> LifecycleEvent {
    LifecycleEvent {
        id: uuid::Uuid::new_v4(),
        kind: EventKind::Updated,
        at: at(seconds),
        team: team.clone(),
        sandbox: sandbox.clone(),
        execution: uuid::Uuid::new_v4(),
        template: "base".parse().unwrap(),
        build: None,
        data: serde_json::json!({"a": "b\0c"}),
    }
}

pub fn line(team: &TeamId, sandbox: &SandboxId, seconds: i64, message: &str) -> LogLine {
    LogLine {
        sandbox: sandbox.clone(),
        team: team.clone(),
        entry: LogEntry {
            at: at(seconds),
            level: LogLevel::Info,
            message: message.into(),
            fields: [("key".to_owned(), "va\0lue".to_owned())].into(),
        },
    }
}

pub fn point(team: &TeamId, seconds: i64) -> TeamPoint {
    TeamPoint {
        team: team.clone(),
        at: at(seconds),
        span: SECOND,
        concurrent: 1,
        started: 1,
    }
}

pub fn logged(team: &TeamId, sandbox: &SandboxId) -> LogQuery {
    LogQuery {
        team: team.clone(),
        sandbox: sandbox.clone(),
        from: all().from,
        before: all().to,
        direction: LogDirection::Forward,
        level_min: LogLevel::Debug,
        search: None,
        rows_max: 10_000,
    }
}
