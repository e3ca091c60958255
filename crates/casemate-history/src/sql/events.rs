//! [`Events`].

use async_trait::async_trait;
use casemate_sql::{Sql, Value, query, query_as};
use casemate_types::{SandboxId, TeamId, TemplateId};
use serde_json::json;
use uuid::Uuid;

use super::sizes::{Kind, counted, sizes};
use super::{SqlHistory, corrupt, failed, millis, time};
use crate::error::Cause;
use crate::{EventKind, EventPage, Events, HistoryError, LifecycleEvent};

const WHAT: &str = "events";

/// What its ids take, and the indexes on them.
const TEXTS: usize = 300;

type Row = (
    String,
    String,
    i64,
    String,
    String,
    String,
    String,
    Option<String>,
    String,
);

macro_rules! page {
    ($order:literal) => {
        concat!(
            "SELECT id, kind, at, team, sandbox, execution, template, build, data FROM events \
             WHERE team = $1 AND ($2 IS NULL OR sandbox = $2) AND at <= $5 \
             ORDER BY at ",
            $order,
            ", number ",
            $order,
            " LIMIT $3 OFFSET $4"
        )
    };
}

const PUT: Sql = counted!(
    "INSERT INTO events (id, kind, at, team, sandbox, execution, template, build, data) \
     SELECT v.value ->> 0, v.value ->> 1, CAST(v.value ->> 2 AS BIGINT), v.value ->> 3, \
      v.value ->> 4, v.value ->> 5, v.value ->> 6, v.value ->> 7, v.value ->> 8 FROM ",
    rows("$1", "v"),
    " ORDER BY v.key ON CONFLICT (id) DO NOTHING"
);

#[async_trait]
impl Events for SqlHistory {
    async fn events_append(&self, events: &[LifecycleEvent]) -> Result<(), HistoryError> {
        let row = |event: &LifecycleEvent| {
            json!([
                event.id.to_string(),
                word(event.kind),
                millis(event.at),
                event.team.as_str(),
                event.sandbox.as_str(),
                event.execution.to_string(),
                event.template.as_str(),
                event.build.map(|build| build.to_string()),
                event.data.to_string(),
            ])
        };
        let taken =
            |event: &LifecycleEvent| (millis(event.at), event.data.to_string().len() + TEXTS);
        query(PUT)
            .bind(Value::rows(events.iter().map(row).collect()))
            .bind_on_postgres(sizes(Kind::Events, events.iter().map(taken)))
            .execute(&self.writer)
            .await
            .map_err(failed(WHAT))?;
        Ok(())
    }

    async fn events_read(&self, page: &EventPage) -> Result<Vec<LifecycleEvent>, HistoryError> {
        let sql = if page.oldest_first {
            page!("ASC")
        } else {
            page!("DESC")
        };
        let rows: Vec<Row> = query_as(sql)
            .bind(page.team.as_str())
            .bind(page.sandbox.as_ref().map(SandboxId::as_str))
            .bind(i64::from(page.rows_max))
            .bind(i64::from(page.offset))
            .bind(page.until.map_or(i64::MAX, millis))
            .fetch_all(&self.readers)
            .await
            .map_err(failed(WHAT))?;
        let read = |row| event(row).map_err(|error| corrupt(WHAT, error));
        rows.into_iter().map(read).collect()
    }
}

fn event(row: Row) -> Result<LifecycleEvent, Cause> {
    let (id, kind, at, team, sandbox, execution, template, build, data) = row;
    Ok(LifecycleEvent {
        id: Uuid::parse_str(&id)?,
        kind: kind_of(&kind).ok_or_else(|| format!("no event is {kind:?}"))?,
        at: time(at),
        team: TeamId::parse(&team)?,
        sandbox: SandboxId::parse(&sandbox)?,
        execution: Uuid::parse_str(&execution)?,
        template: TemplateId::parse(&template)?,
        build: build.map(|build| Uuid::parse_str(&build)).transpose()?,
        data: serde_json::from_str(&data)?,
    })
}

fn word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Created => "created",
        EventKind::Killed => "killed",
        EventKind::Updated => "updated",
        EventKind::Paused => "paused",
        EventKind::Resumed => "resumed",
        EventKind::Checkpointed => "checkpointed",
    }
}

fn kind_of(word: &str) -> Option<EventKind> {
    match word {
        "created" => Some(EventKind::Created),
        "killed" => Some(EventKind::Killed),
        "updated" => Some(EventKind::Updated),
        "paused" => Some(EventKind::Paused),
        "resumed" => Some(EventKind::Resumed),
        "checkpointed" => Some(EventKind::Checkpointed),
        _ => None,
    }
}
