//! Deleting a template, which a snapshot is as well.
//!
//! Row first, files after: a crash in between leaves files that no row wants, which go with the next
//! comparison ([`crate::reconcile`]).

use std::sync::Arc;

use casemate_failpoint::{self as failpoint, Point};
use casemate_store::{SandboxFilter, StoreError, TemplateDeleted};
use casemate_types::TemplateId;
use casemate_types::sandbox::PublicState;
use casemate_types::template::{TemplateRef, TemplateRefError};

use super::cancel::cancelled;
use super::owned::{Asker, Owned};
use super::written;
use crate::Control;
use crate::auth::{TeamCaller, WhenBlocked};
use crate::reconcile;

/// Why a template was not deleted. The texts are E2B's where E2B has one.
#[derive(Debug, thiserror::Error)]
pub enum DeleteTemplateError {
    #[error("Invalid template reference: {0}")]
    Reference(#[from] TemplateRefError),
    #[error("template '{0}' not found")]
    NotFound(String),
    #[error("You don't have access to template '{0}'")]
    NotYours(String),
    #[error("cannot delete template '{template}' because there are {state} sandboxes using it")]
    InUse {
        template: TemplateId,
        state: &'static str,
    },
    #[error("the store failed in a deletion")]
    Store(#[from] StoreError),
}

impl Control {
    /// Deletes a template of the asker's with all its tags and builds, also those under way. A tag in
    /// the reference says nothing.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn delete_template(
        self: &Arc<Self>,
        asker: &Asker,
        text: &str,
    ) -> Result<(), DeleteTemplateError> {
        let reference = TemplateRef::parse(text)?;
        let not_found = || DeleteTemplateError::NotFound(written(&reference));
        let (caller, template) = match self.owned(asker, &reference, WhenBlocked::Allowed).await? {
            Owned::Yes(caller, template) => (caller, template.id),
            Owned::NotYours => return Err(DeleteTemplateError::NotYours(written(&reference))),
            Owned::Unknown => return Err(not_found()),
        };
        if !self.is_used(&caller, &template).await? {
            self.cancel_open(&caller, &template).await?;
        }
        let in_use = |state| DeleteTemplateError::InUse {
            template: template.clone(),
            state,
        };
        match self.store.template_delete(&template).await? {
            TemplateDeleted::Done(files) => {
                failpoint::hit(Point::SnapshotForgotten);
                self.forget_builds().await;
                // One that was begun since those before were cancelled.
                self.building.cancel_of(&template);
                self.drop_warm_of(&template);
                self.drop_files(files);
                // Of what was built, layers: nobody waits ten minutes for gigabytes.
                reconcile::drop_unwanted_soon(self);
                Ok(())
            }
            TemplateDeleted::InUse(PublicState::Running) => Err(in_use("running")),
            TemplateDeleted::InUse(PublicState::Paused) => Err(in_use("paused")),
            TemplateDeleted::Unknown => Err(not_found()),
        }
    }

    /// What is in use stays, and its builds with it; the store has the last word.
    async fn is_used(&self, caller: &TeamCaller, id: &TemplateId) -> Result<bool, StoreError> {
        let filter = SandboxFilter {
            team: caller.team.id.clone(),
            states: vec![PublicState::Running, PublicState::Paused],
            metadata: std::collections::BTreeMap::new(),
            template: Some(id.clone()),
            started_after: None,
        };
        Ok(self.store.sandbox_count(&filter).await? > 0)
    }

    async fn cancel_open(&self, caller: &TeamCaller, id: &TemplateId) -> Result<(), StoreError> {
        let mut open = Vec::new();
        for build in self.store.build_list_open(&caller.team.id).await? {
            let record = self.store.build_record(&build).await?;
            if record.is_some_and(|record| record.template == *id) {
                open.push(build);
            }
        }
        self.cancel_builds(&open, cancelled()).await;
        Ok(())
    }
}
