//! Whose a template is: what may be changed, and read in detail, by its own team alone.

use std::sync::Arc;

use casemate_store::{StoreError, Team, Template};
use casemate_types::template::TemplateRef;
use casemate_types::{TeamId, UserId};

use crate::Control;
use crate::auth::{TeamCaller, WhenBlocked, standing};

/// Who asks for a template.
#[derive(Debug, Clone)]
pub enum Asker {
    Team(TeamCaller),
    /// Acts for whichever of their teams it belongs to.
    User(UserId),
}

/// What a reference led to.
pub(crate) enum Owned {
    Yes(TeamCaller, Template),
    /// It is there, and belongs to somebody else.
    NotYours,
    Unknown,
}

/// Why no team was chosen. The texts are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum TeamChoiceError {
    #[error("Team ID param mismatch with the API key")]
    Mismatch,
    #[error("You are not allowed to access this team")]
    NotMember,
    #[error("Default team not found")]
    NoDefault,
    #[error("look up the teams of a user")]
    Store(#[from] StoreError),
}

impl Control {
    /// The template that `reference` names, whatever its tag, if it is the asker's. A user's teams
    /// count as far as `blocked` lets them.
    pub(crate) async fn owned(
        &self,
        asker: &Asker,
        reference: &TemplateRef,
        blocked: WhenBlocked,
    ) -> Result<Owned, StoreError> {
        let mut is_anothers = false;
        for caller in self.callers(asker, blocked).await? {
            match self.template_named(&caller, reference).await? {
                Some(found) if found.owner.as_ref() == Some(&caller.team.id) => {
                    return Ok(Owned::Yes(caller, found));
                }
                Some(_) => is_anothers = true,
                None => {}
            }
        }
        Ok(match is_anothers {
            true => Owned::NotYours,
            false => Owned::Unknown,
        })
    }

    /// Whether the asker acts for this team; nobody does for none.
    pub(crate) async fn acts_for(
        &self,
        asker: &Asker,
        team: Option<&TeamId>,
    ) -> Result<bool, StoreError> {
        let callers = self.callers(asker, WhenBlocked::Allowed).await?;
        Ok(callers.iter().any(|caller| Some(&caller.team.id) == team))
    }

    /// The team whose templates are listed: the one that is named, else the asker's own or first.
    pub(crate) async fn chosen_team(
        &self,
        asker: &Asker,
        named: Option<&str>,
    ) -> Result<TeamCaller, TeamChoiceError> {
        let user = match asker {
            Asker::Team(caller) => {
                return match named {
                    Some(named) if !is_id(&caller.team, named) => Err(TeamChoiceError::Mismatch),
                    Some(_) | None => Ok(caller.clone()),
                };
            }
            Asker::User(user) => user,
        };
        for membership in self.store.memberships(user).await? {
            let is_meant = match named {
                Some(named) => is_id(&membership.team, named),
                None => membership.is_default,
            };
            if is_meant {
                return match standing(&membership.team, WhenBlocked::Allowed) {
                    Ok(()) => Ok(self.caller_of(membership.team)),
                    Err(_) => Err(TeamChoiceError::NotMember),
                };
            }
        }
        Err(match named {
            Some(_) => TeamChoiceError::NotMember,
            None => TeamChoiceError::NoDefault,
        })
    }

    async fn callers(
        &self,
        asker: &Asker,
        blocked: WhenBlocked,
    ) -> Result<Vec<TeamCaller>, StoreError> {
        let user = match asker {
            Asker::Team(caller) => return Ok(vec![caller.clone()]),
            Asker::User(user) => user,
        };
        let memberships = self.store.memberships(user).await?;
        let teams = memberships.into_iter().map(|membership| membership.team);
        let good = teams.filter(|team| standing(team, blocked).is_ok());
        Ok(good.map(|team| self.caller_of(team)).collect())
    }

    fn caller_of(&self, team: Team) -> TeamCaller {
        TeamCaller {
            limits: self.config.limits.of(&team),
            team: Arc::new(team),
        }
    }
}

fn is_id(team: &Team, text: &str) -> bool {
    team.id.as_str().eq_ignore_ascii_case(text)
}
