//! Publishing a template, and taking that back.

use casemate_store::{StoreError, TemplateSource};
use casemate_types::Timestamp;
use casemate_types::template::{TemplateRef, TemplateRefError};

use super::owned::{Asker, Owned};
use super::written;
use crate::Control;
use crate::auth::WhenBlocked;

/// Why a template was not changed. The texts are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum UpdateTemplateError {
    #[error("Invalid template ID: {0}")]
    Reference(#[from] TemplateRefError),
    #[error("You don't have access to template '{0}'")]
    NotYours(String),
    #[error("template '{0}' not found")]
    NotFound(String),
    #[error("Template '{0}' not found or you don't have access to it")]
    Snapshot(String),
    #[error("the store failed in a change of a template")]
    Store(#[from] StoreError),
}

impl Control {
    /// Lets other teams use a template, or not; `None` changes nothing. Its names.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn update_template(
        self: &std::sync::Arc<Self>,
        asker: &Asker,
        text: &str,
        public: Option<bool>,
    ) -> Result<Vec<String>, UpdateTemplateError> {
        let reference = TemplateRef::parse(text)?;
        let not_found = || UpdateTemplateError::NotFound(written(&reference));
        let owned = self.owned(asker, &reference, WhenBlocked::Refused).await?;
        let template = match owned {
            Owned::Yes(_, template) if template.source == TemplateSource::Build => template,
            Owned::Yes(..) => return Err(UpdateTemplateError::Snapshot(written(&reference))),
            Owned::NotYours => return Err(UpdateTemplateError::NotYours(written(&reference))),
            Owned::Unknown => return Err(not_found()),
        };
        if let Some(public) = public {
            let (id, now) = (&template.id, Timestamp::now());
            if !self.store.template_set_public(id, public, now).await? {
                return Err(not_found());
            }
            // Others may use it now, or must not any more.
            self.forget_builds().await;
            if !public {
                self.drop_warm_of(id);
            }
            tracing::info!(template.id = %id, public, "a template was published, or taken back");
        }
        let summary = self.store.template_summary(&template.id).await?;
        Ok(full_names(&summary.ok_or_else(not_found)?.names))
    }
}

/// `namespace/alias`, or the alias alone where it is the platform's.
pub fn full_names(names: &[(Option<String>, String)]) -> Vec<String> {
    let full = |(namespace, alias): &(Option<String>, String)| match namespace {
        Some(namespace) => format!("{namespace}/{alias}"),
        None => alias.clone(),
    };
    names.iter().map(full).collect()
}
