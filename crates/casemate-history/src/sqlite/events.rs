//! [`Events`].

use async_trait::async_trait;
use casemate_types::{SandboxId, TeamId, TemplateId};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{ROWS_AT_ONCE, SqliteHistory, corrupt, failed, millis, time};
use crate::error::Cause;
use crate::{EventKind, EventPage, Events, HistoryError, LifecycleEvent};

const WHAT: &str = "events";

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
             WHERE team = $1 AND ($2 IS NULL OR sandbox = $2) ORDER BY at ",
            $order,
            ", number ",
            $order,
            " LIMIT $3 OFFSET $4"
        )
    };
}

#[async_trait]
impl Events for SqliteHistory {
    async fn events_append(&self, events: &[LifecycleEvent]) -> Result<(), HistoryError> {
        let _writing = self.writing.lock().await;
        let mut change = self.writer.begin().await.map_err(failed(WHAT))?;
        for some in events.chunks(ROWS_AT_ONCE) {
            let mut insert = QueryBuilder::new(
                "INSERT INTO events \
                 (id, kind, at, team, sandbox, execution, template, build, data) ",
            );
            insert.push_values(some, |mut row, event| {
                row.push_bind(event.id.to_string())
                    .push_bind(word(event.kind))
                    .push_bind(millis(event.at))
                    .push_bind(event.team.as_str())
                    .push_bind(event.sandbox.as_str())
                    .push_bind(event.execution.to_string())
                    .push_bind(event.template.as_str())
                    .push_bind(event.build.map(|build| build.to_string()))
                    .push_bind(event.data.to_string());
            });
            insert.push(" ON CONFLICT (id) DO NOTHING");
            let inserted = insert.build().execute(&mut *change).await;
            inserted.map_err(failed(WHAT))?;
        }
        change.commit().await.map_err(failed(WHAT))
    }

    async fn events_read(&self, page: &EventPage) -> Result<Vec<LifecycleEvent>, HistoryError> {
        let sql = if page.oldest_first {
            page!("ASC")
        } else {
            page!("DESC")
        };
        let rows: Vec<Row> = sqlx::query_as(sql)
            .bind(page.team.as_str())
            .bind(page.sandbox.as_ref().map(SandboxId::as_str))
            .bind(i64::from(page.rows_max))
            .bind(i64::from(page.offset))
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
