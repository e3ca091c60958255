use casemate_types::{Sample, Usage};
use uuid::Uuid;

use super::*;
use crate::{
    EventKind, EventPage, History, LifecycleEvent, LogDirection, LogEntry, LogLevel, LogLine,
    LogQuery, Range, Retention, TeamPoint,
};

const HOUR: i64 = 3600;

/// One row of each kind, this many hours after the beginning; samples for ten minutes.
async fn hour(history: &dyn History, team: &TeamId, sandbox: &SandboxId, hours: i64, text: &str) {
    let begin = hours * HOUR;
    for seconds in (begin..begin + 600).step_by(5) {
        let sample = Sample {
            sandbox: sandbox.clone(),
            team: team.clone(),
            at: at(seconds),
            usage: Usage::default(),
        };
        history.samples_append(&[sample]).await.unwrap();
    }
    let point = TeamPoint {
        team: team.clone(),
        at: at(begin),
        span: SECOND,
        concurrent: 1,
        started: 1,
    };
    history.activity_append(&[point]).await.unwrap();
    let event = LifecycleEvent {
        id: Uuid::new_v4(),
        kind: EventKind::Created,
        at: at(begin),
        team: team.clone(),
        sandbox: sandbox.clone(),
        execution: Uuid::new_v4(),
        template: "base".parse().unwrap(),
        build: None,
        data: serde_json::Value::Null,
    };
    history.events_append(&[event]).await.unwrap();
    let line = LogLine {
        sandbox: sandbox.clone(),
        team: team.clone(),
        entry: LogEntry {
            at: at(begin),
            level: LogLevel::Info,
            message: text.into(),
            fields: Default::default(),
        },
    };
    history.logs_append(&[line]).await.unwrap();
}

/// Which hours samples, activity, events and logs still have.
async fn hours(history: &dyn History, team: &TeamId, sandbox: &SandboxId) -> [Vec<i64>; 4] {
    let all = Range {
        from: at(0),
        to: at(1000 * HOUR),
    };
    let hour = |time: Timestamp| (time.as_second() - at(0).as_second()).div_euclid(HOUR);
    let samples = history
        .samples_read(team, sandbox, all, SECOND)
        .await
        .unwrap();
    let mut samples: Vec<_> = samples.iter().map(|point| hour(point.at)).collect();
    samples.dedup();
    let points = history.activity_read(team, all, SECOND).await.unwrap();
    let page = EventPage {
        team: team.clone(),
        sandbox: None,
        oldest_first: true,
        until: None,
        offset: 0,
        rows_max: 1000,
    };
    let events = history.events_read(&page).await.unwrap();
    let query = LogQuery {
        team: team.clone(),
        sandbox: sandbox.clone(),
        from: all.from,
        before: all.to,
        direction: LogDirection::Forward,
        level_min: LogLevel::Debug,
        search: None,
        rows_max: 1000,
    };
    let logs = history.logs_read(&query).await.unwrap();
    [
        samples,
        points.iter().map(|point| hour(point.at)).collect(),
        events.iter().map(|event| hour(event.at)).collect(),
        logs.iter().map(|entry| hour(entry.at)).collect(),
    ]
}

fn hours_kept(metrics: u64, events: u64, logs: u64) -> Retention {
    let hours = |hours: u64| Duration::from_secs(hours * HOUR.unsigned_abs());
    Retention {
        metrics: hours(metrics),
        events: hours(events),
        logs: hours(logs),
        bytes_max: u64::MAX,
    }
}

pub async fn what_is_too_old_is_forgotten_and_the_rest_kept(history: &dyn History) {
    let (team, sandbox) = (team(), sandbox());
    for hours in [1, 4, 8] {
        hour(history, &team, &sandbox, hours, "x").await;
    }
    let now = at(9 * HOUR);
    let all = || vec![1, 4, 8];
    let done = history.trim(now, &hours_kept(24, 24, 24)).await.unwrap();
    assert_eq!((done.rows, done.cut), (0, false));
    assert_eq!(
        hours(history, &team, &sandbox).await,
        [all(), all(), all(), all()]
    );
    for _ in 0..2 {
        history.trim(now, &hours_kept(2, 6, 24)).await.unwrap();
        let found = hours(history, &team, &sandbox).await;
        assert_eq!(found, [vec![8], vec![8], vec![4, 8], all()]);
    }
    // Long after its last row a sandbox is forgotten whole, and may be heard of again.
    history
        .trim(at(500 * HOUR), &hours_kept(1, 1, 1))
        .await
        .unwrap();
    assert_eq!(hours(history, &team, &sandbox).await[3], [0; 0]);
}

pub async fn what_is_too_much_goes_oldest_first(history: &dyn History) {
    let (team, sandbox) = (team(), sandbox());
    let large = "x".repeat(100_000);
    for hours in 1..=20 {
        hour(history, &team, &sandbox, hours, &large).await;
    }
    let mut keep = hours_kept(1000, 1000, 1000);
    let before = history.trim(at(21 * HOUR), &keep).await.unwrap();
    keep.bytes_max = before.bytes / 2;
    let done = history.trim(at(21 * HOUR), &keep).await.unwrap();
    assert!(done.cut && done.bytes <= keep.bytes_max, "{done:?}");
    let [samples, points, events, logs] = hours(history, &team, &sandbox).await;
    for kept in [samples, points, events, logs] {
        let first = kept[0];
        assert!((2..20).contains(&first), "{kept:?}");
        assert_eq!(kept, (first..=20).collect::<Vec<_>>());
    }
}
