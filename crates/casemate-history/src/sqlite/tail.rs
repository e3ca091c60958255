//! The youngest samples, in memory as well as in batches on disk, until they become chunks.

use std::collections::HashMap;

use casemate_types::{SandboxId, Timestamp, Usage};

use crate::UsageAt;

/// Batches are made chunks of when the oldest is this old, in milliseconds. Longer chunks take
/// fewer bytes a sample; longer tails take memory and time at the start.
const AGE_MAX_MS: i64 = 5 * 60 * 1000;
/// … or when they hold this many samples.
const SAMPLES_MAX: usize = 200_000;

/// One sample: time and figures as numbers.
pub(super) type Row = [i64; 8];

#[derive(Default)]
pub(super) struct Tail {
    series: HashMap<i64, Vec<Row>>,
    /// Numbers of sandboxes that were written of lately.
    numbers: HashMap<SandboxId, i64>,
    samples: usize,
    oldest: Option<i64>,
    newest: i64,
}

impl Tail {
    pub(super) fn number(&self, sandbox: &SandboxId) -> Option<i64> {
        self.numbers.get(sandbox).copied()
    }

    pub(super) fn remember(&mut self, sandbox: &SandboxId, number: i64) {
        self.numbers.insert(sandbox.clone(), number);
    }

    pub(super) fn push(&mut self, number: i64, row: Row) {
        self.series.entry(number).or_default().push(row);
        self.samples += 1;
        self.oldest = Some(self.oldest.map_or(row[0], |oldest| oldest.min(row[0])));
        self.newest = self.newest.max(row[0]);
    }

    pub(super) fn is_full(&self) -> bool {
        let age = self.oldest.map_or(0, |oldest| self.newest - oldest);
        age >= AGE_MAX_MS || self.samples >= SAMPLES_MAX
    }

    /// Whether anything in it is of before that moment.
    pub(super) fn has_before(&self, at: i64) -> bool {
        self.oldest.is_some_and(|oldest| oldest < at)
    }

    pub(super) fn of(&self, number: i64) -> Vec<Row> {
        self.series.get(&number).cloned().unwrap_or_default()
    }

    pub(super) fn all(&self) -> Vec<(i64, Vec<Row>)> {
        let each = |(number, rows): (&i64, &Vec<Row>)| (*number, rows.clone());
        self.series.iter().map(each).collect()
    }

    /// All of it is in chunks now.
    pub(super) fn clear(&mut self) {
        let written = std::mem::take(self);
        self.numbers = written.numbers;
        self.numbers
            .retain(|_, number| written.series.contains_key(number));
    }
}

/// Pieces that span little enough to be forgotten by their age; `rows` are in order.
pub(super) fn pieces(rows: &[Row]) -> Vec<&[Row]> {
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
