//! The numbers under which sandboxes' rows are kept.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use casemate_sql::{Sql, Value, query_as, query_scalar, sql};
use casemate_types::{SandboxId, TeamId, Timestamp};
use serde_json::json;

use super::{SqlHistory, failed, millis};
use crate::HistoryError;

const WHAT: &str = "numbers of sandboxes";

/// How long a number is taken from memory before the database hears again that its sandbox lives, in
/// time of ours and of its rows. Numbers are forgotten an hour after the last row that they could have
/// (`trim.rs`), so no server writes under one that is gone.
const HEARD_EVERY: Duration = Duration::from_secs(600);

/// In the order of ids, in which servers that meet here lock rows. An update makes RETURNING answer for
/// a row that was there already.
const PUT: Sql = sql!(
    "INSERT INTO subjects (sandbox, team, last_at) \
     SELECT v.value ->> 0, v.value ->> 1, CAST(v.value ->> 2 AS BIGINT) FROM ",
    rows("$1", "v"),
    " ORDER BY v.key ON CONFLICT (sandbox) DO UPDATE SET last_at = ",
    either("max", "GREATEST"),
    "(subjects.last_at, excluded.last_at) RETURNING sandbox, number"
);

/// Numbers of sandboxes that were written of lately.
#[derive(Default)]
pub(super) struct Known(HashMap<SandboxId, Number>);

struct Number {
    number: i64,
    /// The time of the row of which the database heard.
    at: i64,
    heard: Instant,
}

impl Known {
    fn number(&self, sandbox: &SandboxId, at: i64) -> Option<i64> {
        let known = self.0.get(sandbox)?;
        let since = i64::try_from(HEARD_EVERY.as_millis()).unwrap_or(i64::MAX);
        let fresh = at <= known.at.saturating_add(since) && known.heard.elapsed() < HEARD_EVERY;
        fresh.then_some(known.number)
    }

    fn forget_old(&mut self) {
        self.0
            .retain(|_, known| known.heard.elapsed() < HEARD_EVERY);
    }
}

impl SqlHistory {
    /// The number of each of these sandboxes, given to it on its first row.
    pub(super) async fn numbers<'a>(
        &self,
        of: impl Iterator<Item = (&'a SandboxId, &'a TeamId, Timestamp)>,
    ) -> Result<HashMap<&'a SandboxId, i64>, HistoryError> {
        let mut numbers = HashMap::new();
        let mut asked: BTreeMap<&SandboxId, (&TeamId, i64)> = BTreeMap::new();
        {
            let known = self.known();
            for (sandbox, team, at) in of {
                let at = millis(at);
                match known.number(sandbox, at) {
                    Some(number) => {
                        numbers.insert(sandbox, number);
                    }
                    None => {
                        let last = asked.entry(sandbox).or_insert((team, at));
                        last.1 = at.max(last.1);
                    }
                }
            }
        }
        if asked.is_empty() {
            return Ok(numbers);
        }
        let row = |(sandbox, (team, at)): (&&SandboxId, &(&TeamId, i64))| {
            json!([sandbox.as_str(), team.as_str(), at])
        };
        let put = query_as::<(String, i64)>(PUT).bind(Value::rows(asked.iter().map(row).collect()));
        let found = put.fetch_all(&self.writer).await.map_err(failed(WHAT))?;
        let found: HashMap<String, i64> = found.into_iter().collect();
        let mut known = self.known();
        for (sandbox, (_, at)) in asked {
            let Some(&number) = found.get(sandbox.as_str()) else {
                continue;
            };
            numbers.insert(sandbox, number);
            let heard = Instant::now();
            known
                .0
                .insert(sandbox.clone(), Number { number, at, heard });
        }
        Ok(numbers)
    }

    /// The number of a team's sandbox, if anything of it was ever kept.
    pub(super) async fn find(
        &self,
        team: &TeamId,
        sandbox: &SandboxId,
    ) -> Result<Option<i64>, HistoryError> {
        query_scalar("SELECT number FROM subjects WHERE sandbox = $1 AND team = $2")
            .bind(sandbox.as_str())
            .bind(team.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed(WHAT))
    }

    /// … of each of a team's sandboxes that have one.
    pub(super) async fn find_all(
        &self,
        team: &TeamId,
        sandboxes: &[SandboxId],
    ) -> Result<HashMap<String, i64>, HistoryError> {
        const FIND: Sql = sql!(
            "SELECT sandbox, number FROM subjects WHERE team = $1 AND sandbox",
            is_in("$2")
        );
        let found: Vec<(String, i64)> = query_as(FIND)
            .bind(team.as_str())
            .bind(Value::texts(sandboxes.iter().map(SandboxId::as_str)))
            .fetch_all(&self.readers)
            .await
            .map_err(failed(WHAT))?;
        Ok(found.into_iter().collect())
    }

    pub(super) fn forget_old_numbers(&self) {
        self.known().forget_old();
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of this lock panics")
    }
}
