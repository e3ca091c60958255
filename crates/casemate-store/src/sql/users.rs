//! [`Users`].

use async_trait::async_trait;
use casemate_sql::{query, query_as, transaction};
use casemate_types::{TeamId, Timestamp, UserId};

use super::teams::team_columns;
use super::{SqlStore, failed};
use crate::error::Cause;
use crate::rows::{MembershipRow, Named, micros, timestamp};
use crate::{Membership, StoreError, User, Users};

#[async_trait]
impl Users for SqlStore {
    async fn user_insert(&self, user: &User) -> Result<(), StoreError> {
        query("INSERT INTO users (id, created_at) VALUES ($1, $2)")
            .bind(user.id.as_str())
            .bind(micros(user.created_at))
            .execute(&self.durable)
            .await
            .map_err(|error| failed("user", &user.id, error))?;
        Ok(())
    }

    async fn user_by_id(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        let row: Option<(i64,)> = query_as("SELECT created_at FROM users WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed("user", id, error))?;
        row.map(|(created_at,)| {
            Ok::<_, Cause>(User {
                id: id.clone(),
                created_at: timestamp(created_at)?,
            })
        })
        .transpose()
        .named("user", id.as_str())
    }

    async fn member_put(
        &self,
        user: &UserId,
        team: &TeamId,
        is_default: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let refused = |error| failed("member", format!("{user} of {team}"), error);
        transaction!(self.durable, refused, async |tx| {
            if is_default {
                query("UPDATE members SET is_default = FALSE WHERE user_id = $1 AND team_id <> $2")
                    .bind(user.as_str())
                    .bind(team.as_str())
                    .execute(&mut *tx)
                    .await
                    .map_err(refused)?;
            }
            query(
                "INSERT INTO members (user_id, team_id, is_default, joined_at) \
                 VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (user_id, team_id) DO UPDATE SET is_default = excluded.is_default",
            )
            .bind(user.as_str())
            .bind(team.as_str())
            .bind(is_default)
            .bind(micros(now))
            .execute(&mut *tx)
            .await
            .map_err(refused)?;
            Ok(())
        })
    }

    async fn memberships(&self, user: &UserId) -> Result<Vec<Membership>, StoreError> {
        let sql = concat!(
            "SELECT ",
            team_columns!(),
            ", m.is_default FROM members m JOIN teams t ON t.id = m.team_id \
             WHERE m.user_id = $1 ORDER BY m.is_default DESC, m.joined_at, t.id"
        );
        let rows: Vec<MembershipRow> = query_as(sql)
            .bind(user.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("user", user, error))?;
        rows.into_iter().map(Membership::try_from).collect()
    }
}
