//! [`Teams`].

use async_trait::async_trait;
use casemate_sql::{query, query_as};
use casemate_types::TeamId;

use super::{SqlStore, failed};
use crate::rows::{TeamRow, micros, standing_words};
use crate::{StoreError, Team, Teams};

/// Of [`TeamRow`], from `teams t`.
macro_rules! team_columns {
    () => {
        "t.id AS team_id, t.slug, t.name AS team_name, t.standing, t.blocked_reason, \
         t.sandboxes_max, t.life_hours_max, t.vcpus_max, t.memory_mib_max, t.paused_days, \
         t.snapshot_days, \
         t.created_at AS team_created_at"
    };
}
pub(super) use team_columns;

#[async_trait]
impl Teams for SqlStore {
    async fn team_insert(&self, team: &Team) -> Result<(), StoreError> {
        let (standing, reason) = standing_words(&team.standing);
        query(
            "INSERT INTO teams (id, slug, name, standing, blocked_reason, sandboxes_max, \
             life_hours_max, vcpus_max, memory_mib_max, paused_days, snapshot_days, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(team.id.as_str())
        .bind(&team.slug)
        .bind(&team.name)
        .bind(standing)
        .bind(reason)
        .bind(team.limits.sandboxes_max.map(i64::from))
        .bind(team.limits.life_hours_max.map(i64::from))
        .bind(team.limits.vcpus_max.map(i64::from))
        .bind(team.limits.memory_mib_max.map(i64::from))
        .bind(team.limits.paused_days.map(i64::from))
        .bind(team.limits.snapshot_days.map(i64::from))
        .bind(micros(team.created_at))
        .execute(&self.durable)
        .await
        .map_err(|error| failed("team", &team.id, error))?;
        Ok(())
    }

    async fn team_by_id(&self, id: &TeamId) -> Result<Option<Team>, StoreError> {
        let sql = concat!("SELECT ", team_columns!(), " FROM teams t WHERE t.id = $1");
        let row: Option<TeamRow> = query_as(sql)
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed("team", id, error))?;
        row.map(Team::try_from).transpose()
    }

    async fn team_by_slug(&self, slug: &str) -> Result<Option<Team>, StoreError> {
        let sql = concat!(
            "SELECT ",
            team_columns!(),
            " FROM teams t WHERE t.slug = $1"
        );
        let row: Option<TeamRow> = query_as(sql)
            .bind(slug)
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed("team", slug, error))?;
        row.map(Team::try_from).transpose()
    }

    async fn team_update(&self, team: &Team) -> Result<bool, StoreError> {
        let (standing, reason) = standing_words(&team.standing);
        let done = query(
            "UPDATE teams SET name = $2, standing = $3, blocked_reason = $4, sandboxes_max = $5, \
             life_hours_max = $6, vcpus_max = $7, memory_mib_max = $8, paused_days = $9, \
             snapshot_days = $10 WHERE id = $1",
        )
        .bind(team.id.as_str())
        .bind(&team.name)
        .bind(standing)
        .bind(reason)
        .bind(team.limits.sandboxes_max.map(i64::from))
        .bind(team.limits.life_hours_max.map(i64::from))
        .bind(team.limits.vcpus_max.map(i64::from))
        .bind(team.limits.memory_mib_max.map(i64::from))
        .bind(team.limits.paused_days.map(i64::from))
        .bind(team.limits.snapshot_days.map(i64::from))
        .execute(&self.durable)
        .await
        .map_err(|error| failed("team", &team.id, error))?;
        Ok(done > 0)
    }

    async fn team_list(&self) -> Result<Vec<Team>, StoreError> {
        let sql = concat!(
            "SELECT ",
            team_columns!(),
            " FROM teams t ORDER BY t.created_at, t.id"
        );
        let rows: Vec<TeamRow> = query_as(sql)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("table", "teams", error))?;
        rows.into_iter().map(Team::try_from).collect()
    }
}
