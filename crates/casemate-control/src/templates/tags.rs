//! Tags of templates: which build each leads to.

use casemate_store::{BuildId, Resolution, StoreError, TagAssignment, Template};
use casemate_types::Timestamp;
use casemate_types::limits::TEMPLATE_TAGS_MAX;
use casemate_types::template::{DEFAULT_TAG, TemplateRef, TemplateRefError, parse_new_tag};

use super::owned::{Asker, Owned};
use super::written;
use crate::Control;
use crate::auth::{TeamCaller, WhenBlocked};
use crate::cursor::InvalidCursor;

/// What came of an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagsAssigned {
    pub tags: Vec<String>,
    pub build: BuildId,
}

/// The texts are E2B's where E2B has one.
#[derive(Debug, thiserror::Error)]
pub enum TagsError {
    #[error("At least one tag is required")]
    None,
    #[error("{0} tags are too many, at most {TEMPLATE_TAGS_MAX} are allowed")]
    TooMany(usize),
    #[error("Cannot delete the '{DEFAULT_TAG}' tag")]
    Default,
    #[error("Template name should not contain a tag, use the 'tags' field instead")]
    NameWithTag,
    #[error("Invalid tag: {0}")]
    Tag(#[source] TemplateRefError),
    #[error("Invalid target template format: {0}")]
    Target(#[source] TemplateRefError),
    #[error("Invalid template name format: {0}")]
    Name(#[source] TemplateRefError),
    #[error("Invalid template reference: {0}")]
    Reference(#[source] TemplateRefError),
    #[error("namespace '{namespace}' must match your team '{team}'")]
    Namespace { namespace: String, team: String },
    #[error("You don't have access to sandbox template '{0}'")]
    NotYours(String),
    #[error("template '{0}' not found")]
    NotFound(String),
    #[error("Template '{target}' with tag '{tag}' not found")]
    NoBuild { target: String, tag: String },
    #[error("Invalid cursor: {0}")]
    Cursor(#[from] InvalidCursor),
    #[error("the store failed with tags")]
    Store(#[from] StoreError),
}

impl Control {
    /// Gives the ready build that `target` leads to more tags; those that it or others have move to it.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn assign_tags(
        &self,
        caller: &TeamCaller,
        target: &str,
        tags: &[String],
    ) -> Result<TagsAssigned, TagsError> {
        let tags = checked(tags)?;
        let reference = TemplateRef::parse(target).map_err(TagsError::Target)?;
        own_namespace(caller, &reference)?;
        let home = &caller.team.slug;
        let (template, build) = match self.store.template_resolve(home, &reference).await? {
            Resolution::Unknown => return Err(TagsError::NotFound(written(&reference))),
            Resolution::NoBuild { template, .. } => (template, None),
            Resolution::Found {
                template, build, ..
            } => (template, Some(build)),
        };
        if template.owner.as_ref() != Some(&caller.team.id) {
            return Err(TagsError::NotYours(written(&reference)));
        }
        let Some(build) = build else {
            return Err(TagsError::NoBuild {
                target: written(&reference),
                tag: reference.tag,
            });
        };
        let (template, now) = (&template.id, Timestamp::now());
        self.store
            .tags_assign(template, &build.id, &tags, now)
            .await?;
        self.forget_builds().await;
        Ok(TagsAssigned {
            tags,
            build: build.id,
        })
    }

    /// Takes tags of a template away; those that it does not have are no error.
    ///
    /// # Cancel safety
    /// None: run it detached.
    pub async fn remove_tags(
        &self,
        caller: &TeamCaller,
        name: &str,
        tags: &[String],
    ) -> Result<(), TagsError> {
        let tags = checked(tags)?;
        if tags.iter().any(|tag| tag == DEFAULT_TAG) {
            return Err(TagsError::Default);
        }
        let reference = TemplateRef::parse(name).map_err(TagsError::Name)?;
        if reference.tag != DEFAULT_TAG {
            return Err(TagsError::NameWithTag);
        }
        own_namespace(caller, &reference)?;
        let template = self
            .tagged(caller, &reference, WhenBlocked::Refused)
            .await?;
        self.store.tags_remove(&template.id, &tags).await?;
        self.forget_builds().await;
        Ok(())
    }

    /// Each tag of a template of the caller's with the build that got it last, by tag.
    pub async fn list_tags(
        &self,
        caller: &TeamCaller,
        text: &str,
    ) -> Result<Vec<TagAssignment>, TagsError> {
        let reference = TemplateRef::parse(text).map_err(TagsError::Reference)?;
        let template = self
            .tagged(caller, &reference, WhenBlocked::Allowed)
            .await?;
        Ok(self.store.tags_list(&template.id).await?)
    }

    /// Whether a tag leads to a build that is ready; beside it the tag as it is kept.
    pub async fn has_tag(
        &self,
        caller: &TeamCaller,
        text: &str,
        tag: &str,
    ) -> Result<(bool, String), TagsError> {
        let reference = TemplateRef::parse(text).map_err(TagsError::Reference)?;
        let tag = parse_new_tag(tag).map_err(TagsError::Tag)?;
        let template = self
            .tagged(caller, &reference, WhenBlocked::Allowed)
            .await?;
        let named = TemplateRef {
            namespace: None,
            name: template.id.to_string(),
            tag: tag.clone(),
        };
        let found = self
            .store
            .template_resolve(&caller.team.slug, &named)
            .await?;
        Ok((matches!(found, Resolution::Found { .. }), tag))
    }

    pub(super) async fn tagged(
        &self,
        caller: &TeamCaller,
        reference: &TemplateRef,
        blocked: WhenBlocked,
    ) -> Result<Template, TagsError> {
        let asker = Asker::Team(caller.clone());
        match self.owned(&asker, reference, blocked).await? {
            Owned::Yes(_, template) => Ok(template),
            Owned::NotYours => Err(TagsError::NotYours(written(reference))),
            Owned::Unknown => Err(TagsError::NotFound(written(reference))),
        }
    }
}

/// At least one, each once.
fn checked(given: &[String]) -> Result<Vec<String>, TagsError> {
    match given.len() {
        0 => return Err(TagsError::None),
        1..=TEMPLATE_TAGS_MAX => {}
        many => return Err(TagsError::TooMany(many)),
    }
    let mut tags: Vec<String> = Vec::new();
    for tag in given {
        let tag = parse_new_tag(tag).map_err(TagsError::Tag)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

fn own_namespace(caller: &TeamCaller, reference: &TemplateRef) -> Result<(), TagsError> {
    match &reference.namespace {
        Some(namespace) if *namespace != caller.team.slug => Err(TagsError::Namespace {
            namespace: namespace.clone(),
            team: caller.team.slug.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}
