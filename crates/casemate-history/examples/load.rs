//! What a history costs its database for many sandboxes, with the real adapter:
//! `cargo run --release -p casemate-history --example load -- PLACE [SANDBOXES] [MINUTES]`, where `PLACE`
//! is a new file of SQLite, or the `postgres://` address of an empty database.
//!
//! Nodes of 100 sandboxes each say a sample of each every five seconds, as real ones do; what comes
//! within 300 ms is one batch. Each sandbox is created, logs a line a minute, and is ended.

use std::time::{Duration, Instant};

use casemate_history::{
    Activity, EventKind, Events, History, LifecycleEvent, LogEntry, LogLevel, LogLine, Logs,
    Retention, Samples, Schema, SqlHistory, TeamPoint,
};
use casemate_sql::postgres::{Commits, PostgresOptions, lazy};
use casemate_sql::{Pool, query_scalar};
use casemate_types::{Sample, SandboxId, TeamId, Timestamp, Usage};

const TEAMS: usize = 10;
const OF_NODE: usize = 100;
const EVERY: u64 = 5000;
const GATHER: u64 = 300;

struct Timed {
    what: &'static str,
    calls: u64,
    rows: usize,
    took: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let place = args
        .next()
        .ok_or("usage: load PLACE [SANDBOXES] [MINUTES]")?;
    let count: usize = args.next().map_or(Ok(10_000), |text| text.parse())?;
    let minutes: u64 = args.next().map_or(Ok(60), |text| text.parse())?;
    let (history, beside) = match place.starts_with("postgres") {
        false => (SqlHistory::open(place.as_ref()).await?, None),
        true => {
            let options = PostgresOptions::parse(&place)?;
            let history = SqlHistory::connect(&options, Schema::Migrate).await?;
            (history, Some(lazy(&options, Commits::Soon)))
        }
    };
    let teams: Vec<TeamId> = (0..TEAMS)
        .map(|_| TeamId::parse(&uuid::Uuid::new_v4().to_string()))
        .collect::<Result<_, _>>()?;
    let mut boxes: Vec<Guest> = (0..count)
        .map(|at| Guest::new(&teams[at % TEAMS], at))
        .collect();
    let wal = wal_bytes(beside.as_ref()).await?;
    let mut all = ["samples", "events", "log lines", "team points"].map(|what| Timed {
        what,
        calls: 0,
        rows: 0,
        took: Duration::ZERO,
    });
    let begin = Timestamp::now().as_millisecond() - i64::try_from(minutes * 60_000)?;
    let time = |ms: u64| -> Result<Timestamp, Box<dyn std::error::Error>> {
        Ok(Timestamp::from_millisecond(begin + i64::try_from(ms)?)?)
    };
    let [samples, events, lines, points] = &mut all;
    let nodes = count.div_ceil(OF_NODE);
    for (kind, ms) in [
        (EventKind::Created, 0),
        (EventKind::Killed, minutes * 60_000),
    ] {
        for some in boxes.chunks(OF_NODE) {
            let at = time(ms)?;
            let rows: Vec<_> = some.iter().map(|guest| guest.event(kind, at)).collect();
            events
                .call(rows.len(), history.events_append(&rows))
                .await?;
        }
    }
    for ms in (0..minutes * 60_000).step_by(usize::try_from(GATHER)?) {
        // Nodes speak one after the other, all within their five seconds.
        let speak = |node: usize| {
            let phase =
                EVERY * u64::try_from(node).unwrap_or(0) / u64::try_from(nodes).unwrap_or(1);
            (ms..ms + GATHER).any(|at| at % EVERY == phase)
        };
        let at = time(ms)?;
        let mut batch = Vec::new();
        for node in (0..nodes).filter(|node| speak(*node)) {
            let of_node = node * OF_NODE..count.min((node + 1) * OF_NODE);
            batch.extend(boxes[of_node].iter_mut().map(|guest| guest.sample(at)));
        }
        if !batch.is_empty() {
            samples
                .call(batch.len(), history.samples_append(&batch))
                .await?;
        }
        if ms % 15_000 < GATHER {
            let of = |team: &TeamId| TeamPoint {
                team: team.clone(),
                at,
                span: Duration::from_secs(15),
                concurrent: u32::try_from(count / TEAMS).unwrap_or(0),
                started: 0,
            };
            let rows: Vec<_> = teams.iter().map(of).collect();
            points
                .call(rows.len(), history.activity_append(&rows))
                .await?;
        }
        if ms % 60_000 < GATHER {
            for some in boxes.chunks(512) {
                let rows: Vec<_> = some.iter().map(|guest| guest.line(at)).collect();
                lines.call(rows.len(), history.logs_append(&rows)).await?;
            }
        }
    }
    let begun = Instant::now();
    let kept = history
        .trim(
            Timestamp::now(),
            &Retention {
                bytes_max: u64::MAX,
                ..Retention::default()
            },
        )
        .await?;
    println!("{count} sandboxes, {minutes} minutes");
    for Timed {
        what,
        calls,
        rows,
        took,
    } in &all
    {
        let each = took.as_secs_f64() * 1000.0 / (*calls).max(1) as f64;
        println!("{what}: {rows} in {calls} calls of {each:.2} ms on average");
    }
    println!(
        "a trim without anything to forget: {:.1} ms",
        begun.elapsed().as_secs_f64() * 1000.0
    );
    let hours = count as f64 * minutes as f64 / 60.0;
    println!(
        "counted: {} bytes, {:.0} a sandbox-hour",
        kept.bytes,
        kept.bytes as f64 / hours
    );
    let asked = &boxes[count / 2];
    let begun = Instant::now();
    let from = casemate_history::Range {
        from: time(0)?,
        to: Timestamp::now(),
    };
    let read = history
        .samples_read(&asked.team, &asked.id, from, Duration::from_secs(5))
        .await?;
    println!(
        "all {} samples of one sandbox: {:.1} ms",
        read.len(),
        begun.elapsed().as_secs_f64() * 1000.0
    );
    let ids: Vec<SandboxId> = boxes
        .iter()
        .step_by(TEAMS)
        .take(100)
        .map(|g| g.id.clone())
        .collect();
    let begun = Instant::now();
    let read = history.samples_latest(&boxes[0].team, &ids).await?;
    println!(
        "the latest of {}: {:.1} ms",
        read.len(),
        begun.elapsed().as_secs_f64() * 1000.0
    );
    if let Some(pool) = &beside {
        let written = wal_bytes(Some(pool)).await? - wal;
        println!(
            "written ahead (WAL): {written} bytes, {:.0} a sandbox-hour",
            written as f64 / hours
        );
        for table in [
            "sample_chunks",
            "young_samples",
            "events",
            "logs",
            "team_points",
            "subjects",
            "sizes",
        ] {
            let name = format!("casemate_history.{table}");
            let bytes: i64 =
                query_scalar("SELECT pg_total_relation_size(CAST($1 AS TEXT)::regclass)")
                    .bind(name)
                    .fetch_one(pool)
                    .await?;
            println!("{table}: {bytes} bytes with its indexes");
        }
    }
    history.close().await;
    Ok(())
}

async fn wal_bytes(pool: Option<&Pool>) -> Result<i64, casemate_sql::Error> {
    let Some(pool) = pool else { return Ok(0) };
    query_scalar("SELECT CAST(pg_current_wal_lsn() - '0/0'::pg_lsn AS BIGINT)")
        .fetch_one(pool)
        .await
}

impl Timed {
    async fn call<E>(
        &mut self,
        rows: usize,
        call: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let begun = Instant::now();
        call.await?;
        self.took += begun.elapsed();
        self.calls += 1;
        self.rows += rows;
        Ok(())
    }
}

/// A sandbox that does little, as most do: a burst now and then, memory and cache that move a bit.
struct Guest {
    id: SandboxId,
    team: TeamId,
    random: u64,
    usage: Usage,
}

impl Guest {
    fn new(team: &TeamId, at: usize) -> Self {
        Self {
            id: SandboxId::random(),
            team: team.clone(),
            random: at as u64,
            usage: Usage {
                vcpus: 2,
                cpu_used_percent: 0.0,
                memory_used_bytes: 9 << 20,
                memory_total_bytes: 512 << 20,
                memory_cache_bytes: 3 << 20,
                disk_used_bytes: 4 << 20,
                disk_total_bytes: 10 << 30,
            },
        }
    }

    fn lot(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn sample(&mut self, at: Timestamp) -> Sample {
        let bursts = self.lot(20) == 0;
        self.usage.cpu_used_percent = if bursts {
            self.lot(10_000)
        } else {
            self.lot(30)
        } as f64
            / 100.0;
        let change = self.lot(64) * 4096;
        self.usage.memory_used_bytes = match self.lot(4) {
            0 => self.usage.memory_used_bytes + change,
            1 => self
                .usage
                .memory_used_bytes
                .saturating_sub(change)
                .max(4 << 20),
            _ => self.usage.memory_used_bytes,
        };
        if bursts {
            self.usage.memory_cache_bytes += self.lot(100) * 4096;
            self.usage.disk_used_bytes += self.lot(100) * 4096;
        }
        Sample {
            sandbox: self.id.clone(),
            team: self.team.clone(),
            at,
            usage: self.usage,
        }
    }

    fn event(&self, kind: EventKind, at: Timestamp) -> LifecycleEvent {
        LifecycleEvent {
            id: uuid::Uuid::new_v4(),
            kind,
            at,
            team: self.team.clone(),
            sandbox: self.id.clone(),
            execution: uuid::Uuid::new_v4(),
            template: "base".parse().expect("an id of a template"),
            build: Some(uuid::Uuid::new_v4()),
            data: serde_json::json!({"reason": "expired"}),
        }
    }

    fn line(&self, at: Timestamp) -> LogLine {
        LogLine {
            sandbox: self.id.clone(),
            team: self.team.clone(),
            entry: LogEntry {
                at,
                level: LogLevel::Info,
                message: "process started: /bin/bash -l -c 'python3 main.py'".into(),
                fields: [("pid".to_owned(), "1234".to_owned())].into(),
            },
        }
    }
}
