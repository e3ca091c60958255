//! Deleting a template, which a snapshot is as well.
//!
//! Row first, files after: a crash in between leaves files that no row wants, which go with the next
//! comparison ([`crate::reconcile`]).

use std::sync::Arc;

use casemate_failpoint::{self as failpoint, Point};
use casemate_store::{StoreError, TemplateDeleted};
use casemate_types::sandbox::PublicState;
use casemate_types::template::{TemplateRef, TemplateRefError};
use casemate_types::{TemplateId, UserId};

use crate::Control;
use crate::auth::TeamCaller;

/// Why a template was not deleted. The texts are E2B's where E2B has one.
#[derive(Debug, thiserror::Error)]
pub enum DeleteTemplateError {
    #[error("Invalid template reference: {0}")]
    Reference(#[from] TemplateRefError),
    #[error("template '{0}' not found")]
    NotFound(String),
    #[error("You don't have access to this template")]
    NotYours,
    #[error("cannot delete template '{template}' because there are {state} sandboxes using it")]
    InUse {
        template: TemplateId,
        state: &'static str,
    },
    #[error("the store failed in a deletion")]
    Store(#[from] StoreError),
}

impl Control {
    /// Deletes a template of the caller's team with all its tags. A tag in the reference says
    /// nothing.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn delete_template(
        &self,
        caller: &TeamCaller,
        text: &str,
    ) -> Result<(), DeleteTemplateError> {
        let reference = TemplateRef::parse(text)?;
        let found = self.template_named(caller, &reference).await?;
        let written = text.split(':').next().unwrap_or(text);
        let template = found.ok_or_else(|| DeleteTemplateError::NotFound(written.to_owned()))?;
        if template.owner.as_ref() != Some(&caller.team.id) {
            return Err(DeleteTemplateError::NotYours);
        }
        let in_use = |state| DeleteTemplateError::InUse {
            template: template.id.clone(),
            state,
        };
        match self.store.template_delete(&template.id).await? {
            TemplateDeleted::Done(files) => {
                failpoint::hit(Point::SnapshotForgotten);
                self.builds_by_reference.clear();
                self.drop_files(files);
                Ok(())
            }
            TemplateDeleted::InUse(PublicState::Running) => Err(in_use("running")),
            TemplateDeleted::InUse(PublicState::Paused) => Err(in_use("paused")),
            TemplateDeleted::Unknown => Err(DeleteTemplateError::NotFound(written.to_owned())),
        }
    }

    /// The same for a user: of whichever of their teams it is.
    pub async fn delete_users_template(
        &self,
        user: &UserId,
        text: &str,
    ) -> Result<(), DeleteTemplateError> {
        let reference = TemplateRef::parse(text)?;
        let mut is_anothers = false;
        for membership in self.store.memberships(user).await? {
            let limits = self.config.limits.of(&membership.team);
            let caller = TeamCaller {
                team: Arc::new(membership.team),
                limits,
            };
            match self.template_named(&caller, &reference).await? {
                Some(found) if found.owner.as_ref() == Some(&caller.team.id) => {
                    return self.delete_template(&caller, text).await;
                }
                Some(_) => is_anothers = true,
                None => {}
            }
        }
        match is_anothers {
            true => Err(DeleteTemplateError::NotYours),
            false => Err(DeleteTemplateError::NotFound(text.to_owned())),
        }
    }
}
