//! [`Samples`].

use std::time::Duration;

use async_trait::async_trait;
use casemate_sql::{query_as, query_scalar};
use casemate_types::{Sample, SandboxId, TeamId};

use super::codec::decode;
use super::young::{Row, Span, ordered, row, usage_at};
use super::{SqlHistory, corrupt, failed, millis, time};
use crate::samples::aggregate;
use crate::{HistoryError, Range, Samples, UsageAt};

const WHAT: &str = "samples";

#[async_trait]
impl Samples for SqlHistory {
    async fn samples_append(&self, samples: &[Sample]) -> Result<(), HistoryError> {
        let heard = samples.iter().map(|s| (&s.sandbox, &s.team, s.at));
        let numbers = self.numbers(heard).await?;
        let numbered = samples.iter().filter_map(|sample| {
            let number = numbers.get(&sample.sandbox)?;
            Some((*number, row(sample.at, &sample.usage)))
        });
        let numbered: Vec<(i64, Row)> = numbered.collect();
        self.young_put(&numbered).await
    }

    async fn samples_read(
        &self,
        team: &TeamId,
        sandbox: &SandboxId,
        range: Range,
        step: Duration,
    ) -> Result<Vec<UsageAt>, HistoryError> {
        let Some(number) = self.find(team, sandbox).await? else {
            return Ok(Vec::new());
        };
        let (from, to) = (millis(range.from), millis(range.to));
        // The young first: those that become chunks meanwhile are seen twice at worst.
        let young = self.young_of(number, Span { from, to }).await?;
        let chunks: Vec<Vec<u8>> = query_scalar(
            "SELECT samples FROM sample_chunks \
             WHERE subject = $1 AND from_at <= $3 AND to_at >= $2 ORDER BY from_at",
        )
        .bind(number)
        .bind(from)
        .bind(to)
        .fetch_all(&self.readers)
        .await
        .map_err(failed(WHAT))?;
        let mut rows: Vec<Row> = Vec::new();
        for chunk in chunks {
            rows.extend(decode(&chunk).map_err(|error| corrupt(WHAT, error))?);
        }
        rows.extend(young);
        let rows = ordered(rows);
        let rows = rows.iter().filter(|row| (from..=to).contains(&row[0]));
        Ok(aggregate(rows.map(usage_at), step))
    }

    async fn samples_range(
        &self,
        team: &TeamId,
        sandbox: &SandboxId,
    ) -> Result<Option<Range>, HistoryError> {
        let Some(number) = self.find(team, sandbox).await? else {
            return Ok(None);
        };
        let young = self.young_of(number, Span::ALL).await?;
        let (from, to): (Option<i64>, Option<i64>) =
            query_as("SELECT MIN(from_at), MAX(to_at) FROM sample_chunks WHERE subject = $1")
                .bind(number)
                .fetch_one(&self.readers)
                .await
                .map_err(failed(WHAT))?;
        let times = || young.iter().map(|row| row[0]);
        let from = times().chain(from).min();
        let to = times().chain(to).max();
        Ok(from.zip(to).map(|(from, to)| Range {
            from: time(from),
            to: time(to),
        }))
    }

    async fn samples_latest(
        &self,
        team: &TeamId,
        sandboxes: &[SandboxId],
    ) -> Result<Vec<Sample>, HistoryError> {
        let numbers = self.find_all(team, sandboxes).await?;
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let young = self.young_latest(numbers.values().copied()).await?;
        let mut latest = Vec::new();
        for sandbox in sandboxes {
            let Some(&number) = numbers.get(sandbox.as_str()) else {
                continue;
            };
            let last = match young.get(&number) {
                Some(row) => Some(*row),
                None => self.last(number).await?,
            };
            if let Some(row) = last {
                let UsageAt { at, usage } = usage_at(&row);
                latest.push(Sample {
                    sandbox: sandbox.clone(),
                    team: team.clone(),
                    at,
                    usage,
                });
            }
        }
        Ok(latest)
    }
}

impl SqlHistory {
    /// … of a sandbox that has none of the last minute.
    async fn last(&self, number: i64) -> Result<Option<Row>, HistoryError> {
        let last = |rows: Vec<Row>| ordered(rows).last().copied();
        if let Some(row) = last(self.young_of(number, Span::ALL).await?) {
            return Ok(Some(row));
        }
        let chunk: Option<Vec<u8>> = query_scalar(
            "SELECT samples FROM sample_chunks WHERE subject = $1 ORDER BY from_at DESC LIMIT 1",
        )
        .bind(number)
        .fetch_optional(&self.readers)
        .await
        .map_err(failed(WHAT))?;
        match chunk {
            None => Ok(None),
            Some(chunk) => {
                let rows = decode(&chunk).map_err(|error| corrupt(WHAT, error))?;
                Ok(last(rows))
            }
        }
    }
}
