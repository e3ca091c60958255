//! From a template reference to a build that the caller may use (`api.md` 1.5).

pub mod builds;
pub mod cancel;
pub mod delete;
pub mod export;
mod forget;
pub mod gc;
pub mod list;
mod owned;
pub mod request;
pub(crate) mod spawned;
pub mod start;
mod tag_history;
pub mod tags;
pub mod update;
pub mod uploads;

use std::sync::Arc;

pub use casemate_build::recipe;

use casemate_store::{Build, Resolution, StoreError, Template};
use casemate_types::template::{TemplateRef, TemplateRefError};
use casemate_types::{TeamId, TemplateId};

pub use owned::{Asker, TeamChoiceError};
pub use tag_history::{GroupsAsk, TagGroup, TagGroups, TagOrder};

use crate::Control;
use crate::auth::TeamCaller;

/// The texts are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("Invalid template reference: {0}")]
    Reference(#[from] TemplateRefError),
    /// Unknown, or another team's private one: its existence is hidden.
    #[error("template '{0}' not found")]
    NotFound(String),
    #[error("tag '{tag}' does not exist for template '{identifier}'")]
    NoBuild { tag: String, identifier: String },
    #[error("error resolving template '{identifier}'")]
    Store {
        identifier: String,
        #[source]
        source: StoreError,
    },
}

/// Why an alias look-up has no answer. The texts are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    #[error("Invalid alias format: {0}")]
    Reference(#[from] TemplateRefError),
    #[error("namespace '{namespace}' must match your team '{team}'")]
    Namespace { namespace: String, team: String },
    /// It exists and belongs to somebody else: "exists" to the SDKs.
    #[error("You don't have access to this template alias")]
    NotYours,
    #[error("template '{0}' not found")]
    NotFound(String),
    #[error("tag '{tag}' does not exist for template '{identifier}'")]
    NoBuild { tag: String, identifier: String },
    #[error("look up a template alias")]
    Store(#[from] StoreError),
}

/// What one team means by a template reference; what it may use is part of that.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ResolvedFor {
    team: TeamId,
    text: String,
}

/// What an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasFound {
    pub template: TemplateId,
    pub public: bool,
}

impl Control {
    /// The build that `text` names and the caller may use.
    pub(crate) async fn resolve_template(
        &self,
        caller: &TeamCaller,
        text: &str,
    ) -> Result<Arc<(Template, Build)>, TemplateError> {
        // Whoever was told by another server where a name leads may ask this one next, before it has heard.
        if self.shared().is_some() {
            return Ok(Arc::new(self.look_up_template(caller, text).await?));
        }
        let key = ResolvedFor {
            team: caller.team.id.clone(),
            text: text.to_owned(),
        };
        if let Some(resolved) = self.builds_by_reference.get(&key) {
            return Ok(resolved);
        }
        let epoch = self.builds_by_reference.epoch();
        let resolved = Arc::new(self.look_up_template(caller, text).await?);
        self.builds_by_reference
            .put(epoch, key, Arc::clone(&resolved));
        Ok(resolved)
    }

    /// The same as it is now: of what is remembered nothing counts.
    pub(crate) async fn look_up_template(
        &self,
        caller: &TeamCaller,
        text: &str,
    ) -> Result<(Template, Build), TemplateError> {
        self.look_up_template_in(&caller.team.slug, text, caller)
            .await
    }

    /// The same from another namespace; from none it is the platform's.
    pub(crate) async fn look_up_template_in(
        &self,
        home: &str,
        text: &str,
        caller: &TeamCaller,
    ) -> Result<(Template, Build), TemplateError> {
        let reference = TemplateRef::parse(text)?;
        let resolution = self.store.template_resolve(home, &reference).await;
        match resolution.map_err(|source| TemplateError::Store {
            identifier: written(&reference),
            source,
        })? {
            Resolution::Unknown => Err(TemplateError::NotFound(written(&reference))),
            Resolution::NoBuild { template, .. } | Resolution::Found { template, .. }
                if !may_use(&template, &caller.team.id) =>
            {
                Err(TemplateError::NotFound(written(&reference)))
            }
            Resolution::NoBuild { identifier, .. } => Err(TemplateError::NoBuild {
                tag: reference.tag,
                identifier,
            }),
            Resolution::Found {
                template, build, ..
            } => Ok((template, build)),
        }
    }

    /// The template that a reference names, whatever its tag; whoever's it is.
    pub(crate) async fn template_named(
        &self,
        caller: &TeamCaller,
        reference: &TemplateRef,
    ) -> Result<Option<Template>, StoreError> {
        let home = &caller.team.slug;
        Ok(match self.store.template_resolve(home, reference).await? {
            Resolution::Unknown => None,
            Resolution::NoBuild { template, .. } | Resolution::Found { template, .. } => {
                Some(template)
            }
        })
    }

    /// Whether a name is taken, and by whom: `GET /templates/aliases/{alias}`.
    pub async fn find_alias(
        &self,
        caller: &TeamCaller,
        text: &str,
    ) -> Result<AliasFound, AliasError> {
        let reference = TemplateRef::parse(text)?;
        if let Some(namespace) = &reference.namespace
            && *namespace != caller.team.slug
        {
            return Err(AliasError::Namespace {
                namespace: namespace.clone(),
                team: caller.team.slug.clone(),
            });
        }
        let home = &caller.team.slug;
        let (template, identifier, has_build) =
            match self.store.template_resolve(home, &reference).await? {
                Resolution::Unknown => return Err(AliasError::NotFound(written(&reference))),
                Resolution::NoBuild {
                    template,
                    identifier,
                } => (template, identifier, false),
                Resolution::Found {
                    template,
                    identifier,
                    ..
                } => (template, identifier, true),
            };
        if template.owner.as_ref() != Some(&caller.team.id) {
            return Err(AliasError::NotYours);
        }
        if !has_build && text.contains(':') {
            return Err(AliasError::NoBuild {
                tag: reference.tag,
                identifier,
            });
        }
        Ok(AliasFound {
            template: template.id,
            public: template.public,
        })
    }
}

fn may_use(template: &Template, team: &TeamId) -> bool {
    template.public || template.owner.as_ref() == Some(team)
}

/// What a client gets to read when nothing matched.
fn written(reference: &TemplateRef) -> String {
    match &reference.namespace {
        Some(namespace) => format!("{namespace}/{}", reference.name),
        None => reference.name.clone(),
    }
}
