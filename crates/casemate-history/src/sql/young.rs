//! Samples as they came, until they become chunks.
//!
//! A batch is all sandboxes of a moment or more, and what is read is one of them. So the sandboxes are
//! dealt to [`LANES`] by their numbers, and a batch is one row for each lane that it has anything of:
//! few rows to write, and a small part of what is young to read. Every server reads them in the
//! database; none keeps any in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{MutexGuard, PoisonError};

use casemate_sql::{Sql, Value, query, query_as, query_scalar, sql, transaction};
use casemate_types::{Timestamp, Usage};
use serde_json::json;

use super::codec::{decode, encode};
use super::sizes::{Kind, counted, sizes};
use super::{SqlHistory, corrupt, failed, hex};
use crate::{HistoryError, UsageAt};

const WHAT: &str = "samples";

/// It is in the rows: another number leads to none of them.
const LANES: i64 = 64;
/// A lane is made chunks of when the oldest in it is this old, in milliseconds. Longer chunks take
/// fewer bytes a sample; more young ones take longer to read.
const AGE_MAX_MS: i64 = 5 * 60 * 1000;
/// How often that is looked at.
const LOOK_EVERY_MS: i64 = 60 * 1000;
/// The last sample of a sandbox that runs is among those of this long, in milliseconds: a few times
/// what nodes wait between two.
const LATEST_MS: i64 = 60 * 1000;

/// A number, then a [`Row`].
const BATCH_COLUMNS: usize = 9;

/// One sample: time and figures as numbers.
pub(super) type Row = [i64; 8];

const PUT: Sql = sql!(
    "INSERT INTO young_samples (lane, from_at, to_at, samples) \
     SELECT CAST(v.value ->> 0 AS BIGINT), CAST(v.value ->> 1 AS BIGINT), \
      CAST(v.value ->> 2 AS BIGINT), ",
    either("unhex(v.value ->> 3)", "decode(v.value ->> 3, 'hex')"),
    " FROM ",
    rows("$1", "v"),
    " ORDER BY v.key"
);

const PUT_CHUNKS: Sql = counted!(
    "INSERT INTO sample_chunks (subject, from_at, to_at, samples) \
     SELECT CAST(v.value ->> 0 AS BIGINT), CAST(v.value ->> 1 AS BIGINT), \
      CAST(v.value ->> 2 AS BIGINT), ",
    either("unhex(v.value ->> 3)", "decode(v.value ->> 3, 'hex')"),
    " FROM ",
    rows("$1", "v"),
    " ORDER BY v.key ON CONFLICT (subject, from_at, to_at) DO UPDATE \
     SET samples = excluded.samples"
);

/// The youngest of these lanes.
const LATEST: Sql = sql!(
    "SELECT number, samples FROM young_samples WHERE lane IN \
     (SELECT CAST(v.value ->> 0 AS BIGINT) FROM ",
    rows("$1", "v"),
    ") AND to_at >= (SELECT MAX(y.to_at) FROM young_samples y) - $2"
);

/// When this process looks again for lanes that are old enough.
#[derive(Default)]
pub(super) struct Due {
    /// `None`: at once, since another process may have left some.
    looked: Option<i64>,
}

/// Which of the young ones.
pub(super) struct Span {
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Span {
    pub(super) const ALL: Self = Self {
        from: i64::MIN,
        to: i64::MAX,
    };
}

impl SqlHistory {
    /// Appends samples of these numbers.
    pub(super) async fn young_put(&self, samples: &[(i64, Row)]) -> Result<(), HistoryError> {
        let mut lanes = BTreeMap::<i64, Vec<[i64; BATCH_COLUMNS]>>::new();
        for (number, row) in samples {
            lanes
                .entry(lane(*number))
                .or_default()
                .push(pack(*number, row));
        }
        let times = || samples.iter().map(|(_, row)| row[0]);
        let Some(newest) = times().max() else {
            return Ok(());
        };
        let row = |(lane, packed): (i64, Vec<[i64; BATCH_COLUMNS]>)| {
            let times = || packed.iter().map(|row| row[1]);
            json!([lane, times().min(), times().max(), hex(&encode(&packed))])
        };
        let rows = Value::rows(lanes.into_iter().map(row).collect());
        let put = query(PUT).bind(rows).execute(&self.writer).await;
        put.map_err(failed(WHAT))?;
        let look = {
            let looked = &mut self.due().looked;
            let look = looked.is_none_or(|looked| newest.saturating_sub(looked) >= LOOK_EVERY_MS);
            if look {
                *looked = Some(newest);
            }
            look
        };
        if look {
            self.forget_old_numbers();
            self.compact(newest.saturating_sub(AGE_MAX_MS)).await?;
        }
        Ok(())
    }

    /// Young samples of one number, in the order in which they came.
    pub(super) async fn young_of(&self, number: i64, of: Span) -> Result<Vec<Row>, HistoryError> {
        let batches: Vec<Vec<u8>> = query_scalar(
            "SELECT samples FROM young_samples \
             WHERE lane = $1 AND to_at >= $2 AND from_at <= $3 ORDER BY number",
        )
        .bind(lane(number))
        .bind(of.from)
        .bind(of.to)
        .fetch_all(&self.readers)
        .await
        .map_err(failed(WHAT))?;
        let mut rows = Vec::new();
        for batch in batches {
            let all = unpack(&batch)?;
            rows.extend(all.filter(|(of, _)| *of == number).map(|(_, row)| row));
        }
        Ok(rows)
    }

    /// The last sample of each of these numbers that has one among the very youngest.
    pub(super) async fn young_latest(
        &self,
        numbers: impl Iterator<Item = i64>,
    ) -> Result<HashMap<i64, Row>, HistoryError> {
        let mut wanted: HashMap<i64, Option<Row>> = numbers.map(|number| (number, None)).collect();
        let mut lanes: Vec<i64> = wanted.keys().copied().map(lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        let mut batches: Vec<(i64, Vec<u8>)> = query_as(LATEST)
            .bind(Value::rows(
                lanes.iter().map(|lane| json!([lane])).collect(),
            ))
            .bind(LATEST_MS)
            .fetch_all(&self.readers)
            .await
            .map_err(failed(WHAT))?;
        batches.sort_unstable_by_key(|(number, _)| *number);
        for (_, batch) in batches {
            for (number, row) in unpack(&batch)? {
                if let Some(last) = wanted.get_mut(&number)
                    && last.is_none_or(|last| last[0] <= row[0])
                {
                    *last = Some(row);
                }
            }
        }
        let found = wanted.into_iter();
        Ok(found
            .filter_map(|(number, row)| Some((number, row?)))
            .collect())
    }

    /// Makes chunks of the lanes that have anything of before that moment.
    pub(super) async fn compact(&self, before: i64) -> Result<(), HistoryError> {
        let lanes: Vec<i64> = query_scalar(
            "SELECT DISTINCT lane FROM young_samples WHERE from_at < $1 ORDER BY lane",
        )
        .bind(before)
        .fetch_all(&self.writer)
        .await
        .map_err(failed(WHAT))?;
        for lane in lanes {
            // Of two servers that do it at once, the second finds nothing there any more.
            transaction!(self.writer, failed(WHAT), async |tx| {
                let mut batches: Vec<(i64, Vec<u8>)> =
                    query_as("DELETE FROM young_samples WHERE lane = $1 RETURNING number, samples")
                        .bind(lane)
                        .fetch_all(&mut *tx)
                        .await
                        .map_err(failed(WHAT))?;
                batches.sort_unstable_by_key(|(number, _)| *number);
                let mut series = BTreeMap::<i64, Vec<Row>>::new();
                for (_, batch) in &batches {
                    for (number, row) in unpack(batch)? {
                        series.entry(number).or_default().push(row);
                    }
                }
                let (chunks, taken) = chunks(series);
                query(PUT_CHUNKS)
                    .bind(chunks)
                    .bind_on_postgres(taken)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed(WHAT))
            })?;
        }
        Ok(())
    }

    /// Makes chunks of what a version before lanes left behind.
    pub(super) async fn take_over_batches(&self) -> Result<(), HistoryError> {
        transaction!(self.writer, failed(WHAT), async |tx| {
            let batches: Vec<Vec<u8>> =
                query_scalar("SELECT samples FROM sample_batches ORDER BY id")
                    .fetch_all(&mut *tx)
                    .await
                    .map_err(failed(WHAT))?;
            if batches.is_empty() {
                return Ok(());
            }
            let mut series = BTreeMap::<i64, Vec<Row>>::new();
            for batch in &batches {
                for (number, row) in unpack(batch)? {
                    series.entry(number).or_default().push(row);
                }
            }
            query(PUT_CHUNKS)
                .bind(chunks(series).0)
                .execute(&mut *tx)
                .await
                .map_err(failed(WHAT))?;
            query("DELETE FROM sample_batches")
                .execute(&mut *tx)
                .await
                .map_err(failed(WHAT))?;
            Ok(())
        })
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Samples of numbers as chunks, and what these take.
fn chunks(series: BTreeMap<i64, Vec<Row>>) -> (Value, Value) {
    let (mut chunks, mut taken) = (Vec::new(), Vec::new());
    for (number, rows) in series {
        let rows = ordered(rows);
        for piece in pieces(&rows) {
            let (from, to) = (piece[0][0], piece[piece.len() - 1][0]);
            let bytes = encode(piece);
            taken.push((to, bytes.len()));
            chunks.push(json!([number, from, to, hex(&bytes)]));
        }
    }
    (Value::rows(chunks), sizes(Kind::Samples, taken.into_iter()))
}

fn lane(number: i64) -> i64 {
    number.rem_euclid(LANES)
}

fn pack(number: i64, row: &Row) -> [i64; BATCH_COLUMNS] {
    let mut packed = [number; BATCH_COLUMNS];
    packed[1..].copy_from_slice(row);
    packed
}

fn unpack(batch: &[u8]) -> Result<impl Iterator<Item = (i64, Row)> + use<>, HistoryError> {
    let packed: Vec<[i64; BATCH_COLUMNS]> = decode(batch).map_err(|error| corrupt(WHAT, error))?;
    Ok(packed.into_iter().map(|packed| {
        let mut row = Row::default();
        row.copy_from_slice(&packed[1..]);
        (packed[0], row)
    }))
}

/// Pieces that span little enough to be forgotten by their age, none of them empty; `rows` are in order.
fn pieces(rows: &[Row]) -> Vec<&[Row]> {
    let mut pieces = Vec::new();
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let length = rest.partition_point(|row| row[0] - first[0] <= AGE_MAX_MS);
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// In order of time, each moment once: what came last of it.
pub(super) fn ordered(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| row[0]);
    rows.reverse();
    rows.dedup_by_key(|row| row[0]);
    rows.reverse();
    rows
}

pub(super) fn row(at: Timestamp, usage: &Usage) -> Row {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    [
        super::millis(at),
        i64::from(usage.vcpus),
        (usage.cpu_used_percent * 100.0).round() as i64,
        number(usage.memory_used_bytes),
        number(usage.memory_total_bytes),
        number(usage.memory_cache_bytes),
        number(usage.disk_used_bytes),
        number(usage.disk_total_bytes),
    ]
}

pub(super) fn usage_at(row: &Row) -> UsageAt {
    let bytes = |column: usize| u64::try_from(row[column]).unwrap_or(0);
    UsageAt {
        at: super::time(row[0]),
        usage: Usage {
            vcpus: u32::try_from(row[1]).unwrap_or(0),
            cpu_used_percent: row[2] as f64 / 100.0,
            memory_used_bytes: bytes(3),
            memory_total_bytes: bytes(4),
            memory_cache_bytes: bytes(5),
            disk_used_bytes: bytes(6),
            disk_total_bytes: bytes(7),
        },
    }
}
