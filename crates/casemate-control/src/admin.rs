//! What administrators do: keys of teams, all sandboxes of a team, counts.

use std::sync::Arc;

use casemate_store::{ApiKey, KeyId, StoreError, Team};
use casemate_types::{EndReason, TeamId, Timestamp, UserId, chain};
use tokio::task::JoinSet;

use crate::Control;
use crate::auth::{AuthError, WhenBlocked, standing};
use crate::credential::{API_KEY_PREFIX, Credential};

const KILLS_AT_ONCE: usize = 10;
/// Characters of a key's name; beyond it 400.
const KEY_NAME_CHARS_MAX: usize = 250;

/// A key just made, with its value for the one answer that shows it.
pub struct NewApiKey {
    pub key: ApiKey,
    pub value: Credential,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("Team not found")]
    NoTeam,
    #[error(transparent)]
    Standing(AuthError),
    #[error("name must have 1 to {KEY_NAME_CHARS_MAX} characters")]
    Name,
    #[error("the store failed with a key")]
    Store(#[from] StoreError),
}

/// What became of an order to kill everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KillCount {
    pub killed: u32,
    pub failed: u32,
}

impl Control {
    /// A new key for a team that is in good standing.
    pub async fn api_key_create(&self, team: &TeamId, name: &str) -> Result<NewApiKey, KeyError> {
        let team = self.store.team_by_id(team).await?.ok_or(KeyError::NoTeam)?;
        standing(&team, WhenBlocked::Refused).map_err(KeyError::Standing)?;
        check_name(name)?;
        Ok(self.insert_api_key(&team, name, None).await?)
    }

    pub(crate) async fn insert_api_key(
        &self,
        team: &Team,
        name: &str,
        created_by: Option<UserId>,
    ) -> Result<NewApiKey, StoreError> {
        let value = Credential::random(API_KEY_PREFIX);
        let key = ApiKey {
            id: KeyId::random(),
            team: team.id.clone(),
            name: name.into(),
            hash: value.hash().clone(),
            mask: value.mask(),
            created_at: Timestamp::now(),
            created_by,
            last_used: None,
        };
        self.store.key_insert(&key).await?;
        tracing::info!(key.id = %key.id, team.id = %team.id, "made an api key");
        Ok(NewApiKey { key, value })
    }

    /// The team's keys, oldest first.
    pub async fn api_key_list(&self, team: &TeamId) -> Result<Vec<ApiKey>, StoreError> {
        self.store.key_list(team).await
    }

    /// Whether the team has such a key.
    pub async fn api_key_rename(
        &self,
        team: &TeamId,
        id: &KeyId,
        name: &str,
    ) -> Result<bool, KeyError> {
        check_name(name)?;
        Ok(self.store.key_rename(team, id, name).await?)
    }

    /// Whether the team had such a key; from now on it opens nothing.
    pub async fn api_key_delete(&self, team: &TeamId, id: &KeyId) -> Result<bool, StoreError> {
        let deleted = self.store.key_delete(team, id).await?;
        if let Some(key) = &deleted {
            self.forget_key(&key.hash).await;
            tracing::info!(key.id = %id, team.id = %team, "deleted an api key");
        }
        Ok(deleted.is_some())
    }

    /// Kills every running sandbox of a team.
    pub async fn kill_team(self: &Arc<Self>, team: &TeamId) -> Result<KillCount, StoreError> {
        let alive = self.store.sandbox_list_alive(None).await?;
        let mut left = alive.into_iter().filter(|row| row.team == *team);
        let mut kills = JoinSet::new();
        let mut count = KillCount::default();
        loop {
            while kills.len() < KILLS_AT_ONCE {
                let Some(row) = left.next() else { break };
                let control = Arc::clone(self);
                kills.spawn(async move {
                    let Some(row) = control.store.sandbox_by_id(&row.id).await? else {
                        return Ok(());
                    };
                    control.end_everywhere(&row, EndReason::Killed).await
                });
            }
            match kills.join_next().await {
                None => return Ok(count),
                Some(Ok(Ok(()))) => count.killed += 1,
                Some(Ok(Err(error))) => {
                    tracing::warn!(team.id = %team, error = chain(&error), "could not kill a sandbox of a team");
                    count.failed += 1;
                }
                Some(Err(_)) => count.failed += 1,
            }
        }
    }

    /// How many run, for each team that has any.
    pub async fn running_counts(&self) -> Result<Vec<(TeamId, u64)>, StoreError> {
        self.store.sandbox_count_by_team().await
    }
}

fn check_name(name: &str) -> Result<(), KeyError> {
    match name.chars().count() {
        1..=KEY_NAME_CHARS_MAX => Ok(()),
        _ => Err(KeyError::Name),
    }
}
