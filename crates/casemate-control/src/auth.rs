//! Who calls (`api.md` 2).
//!
//! An operation demands an [`Access`]: alternatives, of which one must hold. The verdict when none
//! does is chosen as E2B does: a banned or blocked team first, then the first scheme that the
//! caller tried, then the first scheme.

use std::sync::Arc;

use casemate_store::{KeyHash, Standing, StoreError, Team};
use casemate_types::{TeamId, Timestamp, UserId, chain};

use crate::Control;
use crate::config::Limits;
use crate::credential::{ACCESS_TOKEN_PREFIX, API_KEY_PREFIX, Credential, CredentialError};
use crate::tasks::TaskKind;

/// What a request brought along; empty headers count as absent.
#[derive(Clone, Default)]
pub struct Credentials {
    pub api_key: Option<String>,
    pub authorization: Option<String>,
    pub team: Option<String>,
    pub admin_token: Option<String>,
}

/// Which callers an operation takes; the letters are those of `api.md` 2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `-`
    Anybody,
    /// T
    Team,
    /// T+A
    TeamOrToken,
    /// U
    User,
    /// P
    Provider,
    /// U or PT
    UserOrProviderTeam,
    /// PT
    ProviderTeam,
    /// PT+AD
    ProviderTeamOrAdmin,
    /// AD
    Admin,
}

/// Whether a blocked team may do it: reading and ending what exists (`api.md` 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBlocked {
    Refused,
    Allowed,
}

/// An authenticated caller.
#[derive(Debug, Clone)]
pub enum Caller {
    Anybody,
    Team(TeamCaller),
    User(UserId),
    Admin,
}

/// Somebody who acts for a team.
#[derive(Debug, Clone)]
pub struct TeamCaller {
    pub team: Arc<Team>,
    /// The team's limits, defaults filled in.
    pub limits: Limits,
}

/// What is wrong with a key or token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    Format,
    Unknown,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("no credential was given")]
    Missing,
    #[error("the credential is malformed")]
    Malformed,
    #[error("the api key is not valid")]
    ApiKey(KeyFault),
    #[error("the access token is not valid")]
    AccessToken(KeyFault),
    /// No auth provider is configured, so no token of one is valid.
    #[error("the auth provider's token is not valid")]
    Provider,
    #[error("the admin token is not valid")]
    Admin,
    /// The administrator named a team that does not exist.
    #[error("there is no such team")]
    AdminTeam,
    #[error("team is banned")]
    Banned,
    #[error("team is blocked")]
    Blocked { reason: Option<String> },
    #[error("look up the caller")]
    Store(#[from] StoreError),
}

#[derive(Clone, Copy)]
enum Scheme {
    ApiKey,
    Token,
    Provider,
    ProviderTeam,
    AdminTeam,
    Admin,
}

fn schemes(access: Access) -> &'static [Scheme] {
    use Scheme::{AdminTeam, ApiKey, Provider, ProviderTeam, Token};
    match access {
        Access::Anybody => &[],
        Access::Team => &[ApiKey, ProviderTeam, AdminTeam],
        Access::TeamOrToken => &[ApiKey, Token, ProviderTeam, AdminTeam],
        Access::User => &[Token, Provider],
        Access::Provider => &[Provider],
        Access::UserOrProviderTeam => &[Token, Provider, ProviderTeam],
        Access::ProviderTeam => &[ProviderTeam],
        Access::ProviderTeamOrAdmin => &[ProviderTeam, AdminTeam],
        Access::Admin => &[Scheme::Admin],
    }
}

impl Control {
    /// Says who calls, or why nobody does.
    pub async fn authenticate(
        &self,
        access: Access,
        blocked: WhenBlocked,
        credentials: &Credentials,
    ) -> Result<Caller, AuthError> {
        if access == Access::Anybody {
            return Ok(Caller::Anybody);
        }
        let mut verdict = None;
        let mut tried = None;
        for scheme in schemes(access) {
            match self.try_scheme(*scheme, credentials).await {
                Ok(Caller::Team(caller)) => match standing(&caller.team, blocked) {
                    Ok(()) => return Ok(Caller::Team(caller)),
                    Err(refused) => verdict = verdict.or(Some(refused)),
                },
                Ok(caller) => return Ok(caller),
                Err(error @ AuthError::Store(_)) => return Err(error),
                Err(AuthError::Missing) => {}
                Err(error) => tried = tried.or(Some(error)),
            }
        }
        Err(verdict.or(tried).unwrap_or(AuthError::Missing))
    }

    /// [`AuthError::Missing`]: the caller did not try this scheme.
    async fn try_scheme(&self, scheme: Scheme, given: &Credentials) -> Result<Caller, AuthError> {
        match scheme {
            Scheme::ApiKey => self.by_api_key(given.api_key.as_deref()).await,
            Scheme::Token => self.by_access_token(given.authorization.as_deref()).await,
            Scheme::Provider | Scheme::ProviderTeam => match given.authorization {
                Some(_) => Err(AuthError::Provider),
                None => Err(AuthError::Missing),
            },
            Scheme::Admin => {
                self.check_admin(given.admin_token.as_deref())?;
                Ok(Caller::Admin)
            }
            Scheme::AdminTeam => {
                self.check_admin(given.admin_token.as_deref())?;
                self.by_admins_choice(given.team.as_deref()).await
            }
        }
    }

    async fn by_api_key(&self, text: Option<&str>) -> Result<Caller, AuthError> {
        let key = Credential::parse(API_KEY_PREFIX, text.ok_or(AuthError::Missing)?).map_err(
            |error| match error {
                CredentialError::Prefix(_) => AuthError::Malformed,
                CredentialError::Digits => AuthError::ApiKey(KeyFault::Format),
            },
        )?;
        let team = self.team_by_key(key.hash()).await?;
        let team = team.ok_or(AuthError::ApiKey(KeyFault::Unknown))?;
        Ok(self.team_caller(team))
    }

    async fn team_by_key(&self, hash: &KeyHash) -> Result<Option<Arc<Team>>, StoreError> {
        if let Some(team) = self.teams_by_key.get(hash) {
            return Ok(Some(team));
        }
        let epoch = self.teams_by_key.epoch();
        let Some((key, team)) = self.store.key_by_hash(hash).await? else {
            return Ok(None);
        };
        let team = Arc::new(team);
        self.teams_by_key
            .put(epoch, hash.clone(), Arc::clone(&team));
        let store = Arc::clone(&self.store);
        self.tasks.spawn(TaskKind::Cleanup, async move {
            if let Err(error) = store.key_touch(&key.id, Timestamp::now()).await {
                tracing::warn!(key.id = %key.id, error = chain(&error), "could not note that a key was used");
            }
        });
        Ok(Some(team))
    }

    async fn by_access_token(&self, header: Option<&str>) -> Result<Caller, AuthError> {
        let header = header.ok_or(AuthError::Missing)?;
        let bearer = header.strip_prefix("Bearer ").ok_or(AuthError::Malformed)?;
        if !bearer.starts_with(ACCESS_TOKEN_PREFIX) {
            // A token of an auth provider: that scheme judges it.
            return Err(AuthError::Missing);
        }
        let token = Credential::parse(ACCESS_TOKEN_PREFIX, bearer)
            .map_err(|_| AuthError::AccessToken(KeyFault::Format))?;
        let token = self.store.token_by_hash(token.hash()).await?;
        let token = token.ok_or(AuthError::AccessToken(KeyFault::Unknown))?;
        Ok(Caller::User(token.user))
    }

    fn check_admin(&self, given: Option<&str>) -> Result<(), AuthError> {
        let given = given.ok_or(AuthError::Missing)?;
        match &self.config.admin_token {
            Some(token) if token.matches(given) => Ok(()),
            _ => Err(AuthError::Admin),
        }
    }

    async fn by_admins_choice(&self, team: Option<&str>) -> Result<Caller, AuthError> {
        let id = team.ok_or(AuthError::Missing)?;
        let id = TeamId::parse(&id.to_ascii_lowercase()).map_err(|_| AuthError::AdminTeam)?;
        let team = self.store.team_by_id(&id).await?;
        Ok(self.team_caller(Arc::new(team.ok_or(AuthError::AdminTeam)?)))
    }

    fn team_caller(&self, team: Arc<Team>) -> Caller {
        Caller::Team(TeamCaller {
            limits: self.config.limits.of(&team),
            team,
        })
    }

    /// Whether it is the administrator's token; for what is no operation of the API.
    pub fn is_admin_token(&self, given: &str) -> bool {
        self.check_admin(Some(given)).is_ok()
    }
}

pub(crate) fn standing(team: &Team, blocked: WhenBlocked) -> Result<(), AuthError> {
    match (&team.standing, blocked) {
        (Standing::Good, _) | (Standing::Blocked { .. }, WhenBlocked::Allowed) => Ok(()),
        (Standing::Blocked { reason }, WhenBlocked::Refused) => Err(AuthError::Blocked {
            reason: reason.clone(),
        }),
        (Standing::Banned, _) => Err(AuthError::Banned),
    }
}
