//! [`Sandboxes`].

use casemate_sql::{Query, Row, Select, Sql, Value, query, query_as, sql, transaction};

use super::artifacts::replace_artifact;
use super::{SqlStore, failed};
use crate::error::Cause;
use crate::rows::{
    AliveRow, Named, SandboxRow, kept_word, micros, network_text, on_timeout_word, portable_name,
    reason_word, signed, state_word,
};
use crate::sandboxes::FORGET_ROWS_MAX;
use crate::{
    AliveSandbox, NewRun, Nodes, Order, Page, Sandbox, SandboxFilter, Sandboxes, StoreError,
    StoredArtifact,
};
use async_trait::async_trait;
use casemate_types::{EndReason, Kept, NetworkPolicy, SandboxId, SandboxState, TeamId, Timestamp};

const WHAT: &str = "sandbox";

/// Of [`SandboxRow`].
macro_rules! columns {
    () => {
        "id, team_id, template_id, alias, build_id, node, envd_version, vcpus, memory_mib, \
         disk_mib, processes_max, metadata, secured, network, timeout_us, on_timeout, \
         started_at, ends_at, state, ended_at, end_reason, generation, kept, auto_resume, \
         ingress, envs, stored_files"
    };
}

// It names the columns as well.
mod insert;

pub(super) use insert::pair_texts;
use insert::{insert, pairs};

/// A statement over what a [`SandboxFilter`] means, `sandboxes s`, with its values as `$1` to `$5`. The
/// state is excluded by a literal so that the index of the living serves.
///
/// PostgreSQL has the metadata twice: as a text, and as pairs to look into. Its JSON cannot hold all
/// that a client may send, such as a NUL.
macro_rules! filtered {
    ([$($before:tt)+] $($after:literal)?) => {
        sql!(
            $($before)+
            " FROM sandboxes s WHERE s.team_id = $1 AND s.state <> 'dead' AND s.state",
            is_in("$2"),
            " AND ",
            either(
                "($3 = '{}' OR NOT EXISTS (SELECT 1 FROM json_each($3) AS want WHERE NOT EXISTS ( \
                 SELECT 1 FROM json_each(s.metadata) AS have \
                 WHERE have.key = want.key AND have.value = want.value)))",
                "s.metadata_pairs @> $3"
            ),
            " AND ($4 IS NULL OR s.template_id = $4) \
             AND ($5 IS NULL OR s.started_at >= $5) \
             AND (s.state <> 'running' OR s.node NOT IN \
             (SELECT id FROM nodes WHERE lost_at IS NOT NULL))"
            $(, $after)?
        )
    };
}

/// `$6` and `$7` are the row before, or beyond all rows. The first comparison alone is one that finds its
/// place in the index, so that a page costs the same wherever it begins.
const NEWEST_FIRST: Sql = filtered!(
    ["SELECT ", columns!(),]
    " AND s.started_at <= $6 AND (s.started_at < $6 OR s.id > $7) \
     ORDER BY s.started_at DESC, s.id ASC LIMIT $8"
);
const OLDEST_FIRST: Sql = filtered!(
    ["SELECT ", columns!(),]
    " AND s.started_at >= $6 AND (s.started_at > $6 OR s.id < $7) \
     ORDER BY s.started_at ASC, s.id DESC LIMIT $8"
);
/// What [`AliveSandbox`] says.
macro_rules! alive {
    () => {
        "SELECT id, team_id, node, on_timeout, started_at, ends_at, state, kept, ingress, generation, \
         stored_files FROM sandboxes WHERE state <> 'dead'"
    };
}
const ALIVE: &str = concat!(alive!(), " ORDER BY started_at, id");
pub(super) const ALIVE_AT_NODE: &str = concat!(alive!(), " AND node = $1 ORDER BY started_at, id");
/// The nodes that sandboxes are at are looked up one after the other, since nothing finds rows by where
/// they are not.
pub(super) const NOWHERE: &str = concat!(
    "WITH RECURSIVE seen(at_node) AS (SELECT MIN(node) FROM sandboxes WHERE state <> 'dead' \
     UNION ALL SELECT (SELECT MIN(node) FROM sandboxes WHERE state <> 'dead' AND node > at_node) \
     FROM seen WHERE at_node IS NOT NULL) ",
    alive!(),
    " AND stored_files IS NULL AND node IN (SELECT at_node FROM seen \
     WHERE at_node NOT IN (SELECT id FROM nodes)) \
     AND EXISTS (SELECT 1 FROM nodes) ORDER BY started_at, id LIMIT $1"
);
const COUNT: Sql = filtered!(["SELECT COUNT(*)",]);
/// … where neither metadata nor a template is asked for: all of it is in the index. Each page of a list
/// says how many run. Where they run is not in it, so those on lost nodes are taken off, if there are
/// any such nodes.
pub(super) const COUNT_ALL: Sql = sql!(
    "SELECT COUNT(*) - CASE WHEN EXISTS (SELECT 1 FROM nodes WHERE lost_at IS NOT NULL) THEN ( \
     SELECT COUNT(*) FROM nodes n JOIN sandboxes x ON x.node = n.id \
     WHERE n.lost_at IS NOT NULL AND x.team_id = $1 AND x.state = 'running' AND x.state",
    is_in("$2"),
    " AND x.started_at >= $3) ELSE 0 END \
     FROM sandboxes WHERE team_id = $1 AND state <> 'dead' AND state",
    is_in("$2"),
    " AND started_at >= $3"
);

/// For the test of their plans.
#[cfg(test)]
pub(super) const PAGES: [Sql; 2] = [NEWEST_FIRST, OLDEST_FIRST];

#[async_trait]
impl Sandboxes for SqlStore {
    async fn sandbox_insert(
        &self,
        sandbox: &Sandbox,
        running_max: Option<u32>,
    ) -> Result<(), StoreError> {
        let refused = |error| failed(WHAT, &sandbox.id, error);
        let done = insert(sandbox, running_max)
            .execute(self.fast())
            .await
            .map_err(refused)?;
        match (done, running_max) {
            (0, Some(max)) => Err(StoreError::TeamFull { max }),
            _ => Ok(()),
        }
    }

    async fn sandbox_by_id(&self, id: &SandboxId) -> Result<Option<Sandbox>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM sandboxes WHERE id = $1");
        let row: Option<SandboxRow> = query_as(sql)
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed(WHAT, id, error))?;
        row.map(Sandbox::try_from).transpose()
    }

    async fn sandbox_page(
        &self,
        filter: &SandboxFilter,
        page: &Page,
    ) -> Result<Vec<Sandbox>, StoreError> {
        let (sql, before_all) = match page.order {
            Order::NewestFirst => (NEWEST_FIRST, i64::MAX),
            Order::OldestFirst => (OLDEST_FIRST, i64::MIN),
        };
        let after = page.after.as_ref();
        let rows: Vec<SandboxRow> = bind_filter(query_as(sql), filter)
            .bind(after.map_or(before_all, |cursor| micros(cursor.started_at)))
            .bind(after.map_or("", |cursor| cursor.id.as_str()))
            .bind(i64::from(page.rows_max))
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("sandboxes of team", &filter.team, error))?;
        rows.into_iter().map(Sandbox::try_from).collect()
    }

    async fn sandbox_count(&self, filter: &SandboxFilter) -> Result<u64, StoreError> {
        let counting = match filter.metadata.is_empty() && filter.template.is_none() {
            true => query_as(COUNT_ALL)
                .bind(filter.team.as_str())
                .bind(Value::texts(filter.states.iter().map(|s| state_word(*s))))
                .bind(filter.started_after.map_or(i64::MIN, micros)),
            false => bind_filter(query_as(COUNT), filter),
        };
        let (count,): (i64,) = counting
            .fetch_one(&self.readers)
            .await
            .map_err(|error| failed("sandboxes of team", &filter.team, error))?;
        count_of(count).named("sandboxes of team", filter.team.as_str())
    }

    async fn sandbox_count_by_team(&self) -> Result<Vec<(TeamId, u64)>, StoreError> {
        let rows: Vec<(String, i64)> = query_as(
            "SELECT team_id, COUNT(*) FROM sandboxes \
             WHERE state <> 'dead' AND state = 'running' \
             AND node NOT IN (SELECT id FROM nodes WHERE lost_at IS NOT NULL) \
             GROUP BY team_id ORDER BY team_id",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(|error| failed("table", "sandboxes", error))?;
        let counted = rows.into_iter().map(|(team, count)| {
            let id = TeamId::parse(&team).map_err(Cause::from);
            id.and_then(|id| Ok((id, count_of(count)?)))
                .named("team", &team)
        });
        counted.collect()
    }

    async fn sandbox_list_alive(
        &self,
        node: Option<&str>,
    ) -> Result<Vec<AliveSandbox>, StoreError> {
        let listing = match node {
            None => query_as(ALIVE),
            Some(node) => query_as(ALIVE_AT_NODE).bind(node),
        };
        let rows: Vec<AliveRow> = listing
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("table", "sandboxes", error))?;
        rows.into_iter().map(AliveSandbox::try_from).collect()
    }

    async fn sandbox_list_nowhere(&self) -> Result<Vec<AliveSandbox>, StoreError> {
        let rows: Vec<AliveRow> = query_as(NOWHERE)
            .bind(i64::from(FORGET_ROWS_MAX))
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("table", "sandboxes", error))?;
        rows.into_iter().map(AliveSandbox::try_from).collect()
    }

    async fn sandbox_set_deadline(
        &self,
        id: &SandboxId,
        generation: u64,
        ends_at: Timestamp,
    ) -> Result<u64, StoreError> {
        let change = query(
            "UPDATE sandboxes SET ends_at = $3, generation = generation + 1 \
             WHERE id = $1 AND generation = $2 AND state = 'running'",
        )
        .bind(id.as_str())
        .bind(signed(generation))
        .bind(micros(ends_at));
        self.swap(id, generation, change).await
    }

    async fn sandbox_set_network(
        &self,
        id: &SandboxId,
        generation: u64,
        network: &NetworkPolicy,
    ) -> Result<u64, StoreError> {
        let change = query(
            "UPDATE sandboxes SET network = $3, generation = generation + 1 \
             WHERE id = $1 AND generation = $2 AND state = 'running'",
        )
        .bind(id.as_str())
        .bind(signed(generation))
        .bind(network_text(network));
        self.swap(id, generation, change).await
    }

    async fn sandbox_pause(
        &self,
        id: &SandboxId,
        generation: u64,
        at: Timestamp,
        kept: Kept,
    ) -> Result<u64, StoreError> {
        let change = query(
            "UPDATE sandboxes \
             SET state = 'paused', ends_at = $3, kept = $4, generation = generation + 1, \
             stored_files = CASE WHEN state = 'paused' AND ends_at = $3 THEN stored_files END \
             WHERE id = $1 AND generation = $2 AND state <> 'dead'",
        )
        .bind(id.as_str())
        .bind(signed(generation))
        .bind(micros(at))
        .bind(kept_word(kept));
        self.swap(id, generation, change).await
    }

    async fn sandbox_resume(
        &self,
        id: &SandboxId,
        generation: u64,
        run: &NewRun<'_>,
        running_max: Option<u32>,
    ) -> Result<u64, StoreError> {
        let change = query(sql!(
            "UPDATE sandboxes SET state = 'running', started_at = $3, ends_at = $4, kept = NULL, \
             on_timeout = $5, node = $7, stored_files = NULL, generation = generation + 1 \
             WHERE id = $1 AND generation = $2 AND state = 'paused' AND ",
            // As for one that is new.
            either(
                "($6 IS NULL OR $6 > (SELECT COUNT(*) FROM sandboxes \
                 WHERE team_id = (SELECT team_id FROM sandboxes WHERE id = $1) \
                 AND state = 'running' \
                 AND node NOT IN (SELECT id FROM nodes WHERE lost_at IS NOT NULL)))",
                "(SELECT sandbox_has_place((SELECT team_id FROM sandboxes WHERE id = $1), $6))"
            ),
            either(
                " AND (EXISTS (SELECT 1 FROM nodes WHERE id = $7) OR NOT EXISTS (SELECT 1 FROM nodes))",
                " AND (SELECT node_stays($7))"
            )
        ))
        .bind(id.as_str())
        .bind(signed(generation))
        .bind(micros(run.started_at))
        .bind(micros(run.ends_at))
        .bind(on_timeout_word(run.on_timeout))
        .bind(running_max.map(i64::from))
        .bind(run.node);
        let conflict = match self.swap(id, generation, change).await {
            Err(conflict @ StoreError::Conflict { .. }) => conflict,
            done => return done,
        };
        if !self.is_paused_in(id, generation).await? {
            return Err(conflict);
        }
        if self.was_removed(run.node).await? {
            let node = run.node.to_owned();
            return Err(StoreError::NodeGone { node });
        }
        Err(running_max.map_or(conflict, |max| StoreError::TeamFull { max }))
    }

    async fn sandbox_end(
        &self,
        id: &SandboxId,
        generation: u64,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<u64, StoreError> {
        let change = query(
            "UPDATE sandboxes \
             SET state = 'dead', ended_at = $3, end_reason = $4, kept = NULL, envs = NULL, \
             stored_files = NULL, generation = generation + 1 \
             WHERE id = $1 AND generation = $2 AND state <> 'dead'",
        )
        .bind(id.as_str())
        .bind(signed(generation))
        .bind(micros(at))
        .bind(reason_word(reason));
        self.swap(id, generation, change).await
    }

    async fn sandbox_store(
        &self,
        id: &SandboxId,
        generation: u64,
        artifact: &StoredArtifact,
    ) -> Result<(), StoreError> {
        let refused = |error| failed(WHAT, id, error);
        let name = portable_name(&artifact.what);
        transaction!(self.durable, refused, async |tx| {
            let noted = query(
                "UPDATE sandboxes SET stored_files = $3 \
                 WHERE id = $1 AND generation = $2 AND state = 'paused' AND stored_files IS NULL",
            )
            .bind(id.as_str())
            .bind(signed(generation))
            .bind(name)
            .execute(&mut *tx)
            .await
            .map_err(refused)?;
            if noted == 0 {
                return Err(StoreError::Conflict {
                    what: WHAT,
                    id: id.to_string(),
                });
            }
            replace_artifact(artifact)
                .execute(&mut *tx)
                .await
                .map_err(refused)?;
            Ok(())
        })
    }

    async fn sandbox_list_unstored(
        &self,
        node: &str,
        before: Timestamp,
        after: Option<&(Timestamp, SandboxId)>,
        rows_max: u32,
    ) -> Result<Vec<AliveSandbox>, StoreError> {
        let sql = concat!(
            alive!(),
            " AND node = $1 AND state = 'paused' AND stored_files IS NULL AND ends_at < $2 \
             AND (ends_at > $3 OR (ends_at = $3 AND id > $4)) ORDER BY ends_at, id LIMIT $5"
        );
        let rows: Vec<AliveRow> = query_as(sql)
            .bind(node)
            .bind(micros(before))
            .bind(after.map_or(i64::MIN, |(at, _)| micros(*at)))
            .bind(after.map_or("", |(_, id)| id.as_str()))
            .bind(i64::from(rows_max))
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("table", "sandboxes", error))?;
        rows.into_iter().map(AliveSandbox::try_from).collect()
    }

    async fn sandbox_list_paused(
        &self,
        team: &TeamId,
        before: Timestamp,
    ) -> Result<Vec<Sandbox>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM sandboxes WHERE team_id = $1 AND state <> 'dead' AND state = 'paused' \
             AND ends_at < $2 ORDER BY ends_at, id LIMIT $3"
        );
        let rows: Vec<SandboxRow> = query_as(sql)
            .bind(team.as_str())
            .bind(micros(before))
            .bind(i64::from(FORGET_ROWS_MAX))
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("sandboxes of team", team, error))?;
        rows.into_iter().map(Sandbox::try_from).collect()
    }

    async fn sandbox_forget(&self, before: Timestamp) -> Result<u64, StoreError> {
        let done = query(
            "DELETE FROM sandboxes WHERE id IN (SELECT id FROM sandboxes \
             WHERE state = 'dead' AND ended_at < $1 ORDER BY ended_at LIMIT $2)",
        )
        .bind(micros(before))
        .bind(i64::from(FORGET_ROWS_MAX))
        .execute(self.fast())
        .await
        .map_err(|error| failed("table", "sandboxes", error))?;
        Ok(done)
    }
}

impl SqlStore {
    /// Generations only grow: one that is this now was so before.
    async fn is_paused_in(&self, id: &SandboxId, generation: u64) -> Result<bool, StoreError> {
        let row = self.sandbox_by_id(id).await?;
        Ok(row.is_some_and(|row| {
            row.generation == generation && matches!(row.state, SandboxState::Paused { .. })
        }))
    }

    /// Whether there are nodes, and it is none of them.
    async fn was_removed(&self, node: &str) -> Result<bool, StoreError> {
        let nodes = self.node_list().await?;
        Ok(!nodes.is_empty() && nodes.iter().all(|one| one.id != node))
    }

    /// Runs a change that touches the row only in the given generation.
    async fn swap(
        &self,
        id: &SandboxId,
        generation: u64,
        change: Query,
    ) -> Result<u64, StoreError> {
        let done = change
            .execute(self.fast())
            .await
            .map_err(|error| failed(WHAT, id, error))?;
        if done == 0 {
            return Err(StoreError::Conflict {
                what: WHAT,
                id: id.to_string(),
            });
        }
        Ok(generation + 1)
    }
}

fn bind_filter<T: Row>(query: Select<T, T>, filter: &SandboxFilter) -> Select<T, T> {
    let states = filter.states.iter().map(|s| state_word(*s));
    let metadata =
        serde_json::to_string(&filter.metadata).expect("a map of strings always serializes");
    query
        .bind(filter.team.as_str())
        .bind(Value::texts(states))
        .bind_either(metadata, pairs(&filter.metadata))
        .bind(filter.template.as_ref().map(|id| id.as_str()))
        .bind(filter.started_after.map(micros))
}

fn count_of(count: i64) -> Result<u64, Cause> {
    Ok(u64::try_from(count)?)
}
