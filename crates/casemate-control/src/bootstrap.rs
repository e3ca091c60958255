//! The first team, user and keys, from what the binary made or was given.

use casemate_store::{
    AccessToken, ApiKey, KeyId, LimitOverrides, Standing, Store, StoreError, Team, User,
};
use casemate_types::{TeamId, Timestamp, UserId};

use crate::Control;
use crate::credential::{ACCESS_TOKEN_PREFIX, API_KEY_PREFIX, Credential, CredentialError};

const TEAM_SETTING: &str = "bootstrap.team";
const USER_SETTING: &str = "bootstrap.user";
const DONE_SETTING: &str = "bootstrap.done";
/// As often as a first start is tried against others that start at once: each write meets another
/// server's once.
const TRIES: usize = 5;

/// The first team's secrets in clear, as they stand in `credentials.env`. No `Debug` on purpose.
pub struct Bootstrap {
    pub team_slug: String,
    pub team_name: String,
    pub api_key: String,
    pub access_token: String,
}

/// Who was made, or was there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrapped {
    pub team: TeamId,
    pub user: UserId,
}

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("the api key is malformed")]
    ApiKey(#[source] CredentialError),
    #[error("the access token is malformed")]
    AccessToken(#[source] CredentialError),
    /// The key or token is there and belongs to somebody else.
    #[error("the {0} belongs to another team or user")]
    Foreign(&'static str),
    #[error("the kept {0} id is no UUID")]
    KeptId(&'static str),
    #[error("the store failed in the bootstrap")]
    Store(#[from] StoreError),
}

impl Control {
    /// Makes what is not there yet. Done again with the same secrets it changes nothing, with
    /// others it adds them; a half-done one is completed.
    pub async fn bootstrap(&self, first: &Bootstrap) -> Result<Bootstrapped, BootstrapError> {
        let ids = || KeyId::random().to_string();
        let team = TeamId::parse(&ids()).map_err(|_| BootstrapError::KeptId("team"))?;
        let user = UserId::parse(&ids()).map_err(|_| BootstrapError::KeptId("user"))?;
        self.bootstrap_as(first, &Bootstrapped { team, user }).await
    }

    /// Makes it if that was never done, whichever server is first; what was taken away since stays
    /// away. Several may try at once with the same secrets.
    pub async fn bootstrap_once(
        &self,
        first: &Bootstrap,
        proposed: &Bootstrapped,
    ) -> Result<Bootstrapped, BootstrapError> {
        let store = self.store.as_ref();
        if store.setting_by_name(DONE_SETTING).await?.is_some() {
            let team = kept_id(store, TEAM_SETTING, proposed.team.as_str()).await?;
            let user = kept_id(store, USER_SETTING, proposed.user.as_str()).await?;
            return Ok(Bootstrapped {
                team: TeamId::parse(&team).map_err(|_| BootstrapError::KeptId("team"))?,
                user: UserId::parse(&user).map_err(|_| BootstrapError::KeptId("user"))?,
            });
        }
        let mut made = self.bootstrap_as(first, proposed).await;
        for _ in 1..TRIES {
            // Another server was between a look and a write of ours.
            if !matches!(&made, Err(BootstrapError::Store(error)) if !error.is_retryable()) {
                break;
            }
            made = self.bootstrap_as(first, proposed).await;
        }
        let made = made?;
        store.setting_put(DONE_SETTING, "1").await?;
        Ok(made)
    }

    /// The same as [`Self::bootstrap`], with ids for a store that has none yet; a store that has keeps its own.
    pub async fn bootstrap_as(
        &self,
        first: &Bootstrap,
        proposed: &Bootstrapped,
    ) -> Result<Bootstrapped, BootstrapError> {
        let api_key =
            Credential::parse(API_KEY_PREFIX, &first.api_key).map_err(BootstrapError::ApiKey)?;
        let token = Credential::parse(ACCESS_TOKEN_PREFIX, &first.access_token)
            .map_err(BootstrapError::AccessToken)?;
        let store = self.store.as_ref();
        let team = kept_id(store, TEAM_SETTING, proposed.team.as_str()).await?;
        let team = TeamId::parse(&team).map_err(|_| BootstrapError::KeptId("team"))?;
        let user = kept_id(store, USER_SETTING, proposed.user.as_str()).await?;
        let user = UserId::parse(&user).map_err(|_| BootstrapError::KeptId("user"))?;
        let now = Timestamp::now();
        make_team(store, &team, first, now).await?;
        make_user(store, &user, now).await?;
        store.member_put(&user, &team, true, now).await?;
        make_api_key(store, &team, &user, &api_key, now).await?;
        make_token(store, &user, &token, now).await?;
        Ok(Bootstrapped { team, user })
    }
}

/// An id that is chosen once, whoever comes first.
async fn kept_id(store: &dyn Store, name: &str, proposed: &str) -> Result<String, StoreError> {
    store.setting_claim(name, proposed).await
}

async fn make_team(
    store: &dyn Store,
    id: &TeamId,
    first: &Bootstrap,
    now: Timestamp,
) -> Result<(), StoreError> {
    if store.team_by_id(id).await?.is_some() {
        return Ok(());
    }
    store
        .team_insert(&Team {
            id: id.clone(),
            slug: first.team_slug.clone(),
            name: first.team_name.clone(),
            standing: Standing::Good,
            limits: LimitOverrides::default(),
            created_at: now,
        })
        .await
}

async fn make_user(store: &dyn Store, id: &UserId, now: Timestamp) -> Result<(), StoreError> {
    if store.user_by_id(id).await?.is_some() {
        return Ok(());
    }
    let user = User {
        id: id.clone(),
        created_at: now,
    };
    store.user_insert(&user).await
}

async fn make_api_key(
    store: &dyn Store,
    team: &TeamId,
    user: &UserId,
    key: &Credential,
    now: Timestamp,
) -> Result<(), BootstrapError> {
    match store.key_by_hash(key.hash()).await? {
        Some((_, owner)) if owner.id == *team => return Ok(()),
        Some(_) => return Err(BootstrapError::Foreign("api key")),
        None => {}
    }
    let row = ApiKey {
        id: KeyId::random(),
        team: team.clone(),
        name: "first".into(),
        hash: key.hash().clone(),
        mask: key.mask(),
        created_at: now,
        created_by: Some(user.clone()),
        last_used: None,
    };
    Ok(store.key_insert(&row).await?)
}

async fn make_token(
    store: &dyn Store,
    user: &UserId,
    token: &Credential,
    now: Timestamp,
) -> Result<(), BootstrapError> {
    match store.token_by_hash(token.hash()).await? {
        Some(kept) if kept.user == *user => return Ok(()),
        Some(_) => return Err(BootstrapError::Foreign("access token")),
        None => {}
    }
    let row = AccessToken {
        id: KeyId::random(),
        user: user.clone(),
        name: "first".into(),
        hash: token.hash().clone(),
        mask: token.mask(),
        created_at: now,
    };
    Ok(store.token_insert(&row).await?)
}
