//! Teams and memberships.

use casemate_types::TeamId;

use super::{Misread, Named, small, timestamp, unknown_word};
use crate::{LimitOverrides, Membership, Standing, StoreError, Team};

#[derive(sqlx::FromRow)]
pub(crate) struct TeamRow {
    team_id: String,
    slug: String,
    team_name: String,
    standing: String,
    blocked_reason: Option<String>,
    sandboxes_max: Option<i64>,
    life_hours_max: Option<i64>,
    vcpus_max: Option<i64>,
    memory_mib_max: Option<i64>,
    paused_days: Option<i64>,
    snapshot_days: Option<i64>,
    team_created_at: i64,
}

#[derive(sqlx::FromRow)]
pub(crate) struct MembershipRow {
    #[sqlx(flatten)]
    team: TeamRow,
    is_default: bool,
}

/// The two columns of a standing.
pub(crate) fn standing_words(standing: &Standing) -> (&'static str, Option<&str>) {
    match standing {
        Standing::Good => ("good", None),
        Standing::Blocked { reason } => ("blocked", reason.as_deref()),
        Standing::Banned => ("banned", None),
    }
}

impl TryFrom<TeamRow> for Team {
    type Error = StoreError;

    fn try_from(row: TeamRow) -> Result<Self, StoreError> {
        let id = row.team_id.clone();
        read_team(row).named("team", &id)
    }
}

impl TryFrom<MembershipRow> for Membership {
    type Error = StoreError;

    fn try_from(row: MembershipRow) -> Result<Self, StoreError> {
        Ok(Self {
            team: row.team.try_into()?,
            is_default: row.is_default,
        })
    }
}

fn read_team(row: TeamRow) -> Result<Team, Misread> {
    let standing = match row.standing.as_str() {
        "good" => Standing::Good,
        "blocked" => Standing::Blocked {
            reason: row.blocked_reason,
        },
        "banned" => Standing::Banned,
        other => return Err(unknown_word("standing", other)),
    };
    let limit = |number: Option<i64>| number.map(small).transpose();
    Ok(Team {
        id: TeamId::parse(&row.team_id)?,
        slug: row.slug,
        name: row.team_name,
        standing,
        limits: LimitOverrides {
            sandboxes_max: limit(row.sandboxes_max)?,
            life_hours_max: limit(row.life_hours_max)?,
            vcpus_max: limit(row.vcpus_max)?,
            memory_mib_max: limit(row.memory_mib_max)?,
            paused_days: limit(row.paused_days)?,
            snapshot_days: limit(row.snapshot_days)?,
        },
        created_at: timestamp(row.team_created_at)?,
    })
}
