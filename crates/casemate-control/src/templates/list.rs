//! What a team reads of its templates.

use casemate_store::{BuildRecord, CreatedCursor, StoreError, TemplateOrder, TemplateSummary};
use casemate_types::limits::PAGE_ROWS_MAX;
use casemate_types::template::{TemplateRef, TemplateRefError};

use super::owned::{Asker, Owned, TeamChoiceError};
use crate::Control;
use crate::auth::{TeamCaller, WhenBlocked};
use crate::cursor::{self, Created, InvalidCursor};

/// A page, and how to go on.
#[derive(Debug)]
pub struct TemplatePage {
    pub templates: Vec<TemplateSummary>,
    pub next_token: Option<String>,
}

/// A template with a page of its builds.
#[derive(Debug)]
pub struct TemplateDetail {
    pub template: TemplateSummary,
    pub builds: Vec<BuildRecord>,
    pub next_token: Option<String>,
}

/// Where a page begins and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAsk {
    /// 1 to [`PAGE_ROWS_MAX`].
    pub limit: u32,
    /// As it was issued; `None` is the first page.
    pub next_token: Option<String>,
}

/// The texts are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum ListTemplatesError {
    #[error("Invalid next token")]
    Cursor(#[from] InvalidCursor),
    #[error(transparent)]
    Team(#[from] TeamChoiceError),
    #[error("Invalid template ID: {0}")]
    Reference(#[from] TemplateRefError),
    #[error("You don't have access to this sandbox template ({0})")]
    NotYours(String),
    #[error("Template {0} not found")]
    NotFound(String),
    #[error("the store failed in a list of templates")]
    Store(#[from] StoreError),
}

impl Control {
    /// The platform's own, by id.
    pub async fn list_stock_templates(&self) -> Result<Vec<TemplateSummary>, StoreError> {
        self.store.template_list_stock().await
    }

    /// All templates of a team without its snapshots, the oldest first.
    pub async fn list_all_templates(
        &self,
        asker: &Asker,
        team: Option<&str>,
    ) -> Result<Vec<TemplateSummary>, ListTemplatesError> {
        let caller = self.chosen_team(asker, team).await?;
        let (order, mut all, mut after) = (TemplateOrder::OldestFirst, Vec::new(), None);
        loop {
            let team = &caller.team.id;
            let page = self
                .store
                .template_page(team, order, after.as_ref(), PAGE_ROWS_MAX);
            let page = page.await?;
            let is_last = page.len() < PAGE_ROWS_MAX as usize;
            after = page.last().map(of_template);
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// One page of them, the newest first.
    pub async fn list_templates(
        &self,
        asker: &Asker,
        team: Option<&str>,
        ask: &PageAsk,
    ) -> Result<TemplatePage, ListTemplatesError> {
        let caller = self.chosen_team(asker, team).await?;
        let after = self.created_after(&caller, Created::Templates, ask)?;
        let (limit, order) = (
            ask.limit.clamp(1, PAGE_ROWS_MAX),
            TemplateOrder::NewestFirst,
        );
        let team = &caller.team.id;
        let page = self
            .store
            .template_page(team, order, after.as_ref(), limit + 1);
        let mut templates = page.await?;
        let more = templates.len() > limit as usize;
        templates.truncate(limit as usize);
        let last = templates.last().filter(|_| more).map(of_template);
        Ok(TemplatePage {
            next_token: self.created_token(&caller, Created::Templates, last),
            templates,
        })
    }

    /// A template of the caller's, also a snapshot, with its builds, the newest first.
    pub async fn template_detail(
        &self,
        caller: &TeamCaller,
        text: &str,
        ask: &PageAsk,
    ) -> Result<TemplateDetail, ListTemplatesError> {
        let after = self.created_after(caller, Created::Builds, ask)?;
        let reference = TemplateRef::parse(text)?;
        let asker = Asker::Team(caller.clone());
        let not_found = || ListTemplatesError::NotFound(text.to_owned());
        let template = match self.owned(&asker, &reference, WhenBlocked::Allowed).await? {
            Owned::Yes(_, template) => template.id,
            Owned::NotYours => return Err(ListTemplatesError::NotYours(text.to_owned())),
            Owned::Unknown => return Err(not_found()),
        };
        let limit = ask.limit.clamp(1, PAGE_ROWS_MAX);
        let summary = self.store.template_summary(&template).await?;
        let page = self.store.build_page(&template, after.as_ref(), limit + 1);
        let mut builds = page.await?;
        let more = builds.len() > limit as usize;
        builds.truncate(limit as usize);
        let last = builds.last().filter(|_| more).map(|last| CreatedCursor {
            created_at: last.created_at,
            id: last.id.to_string(),
        });
        Ok(TemplateDetail {
            template: summary.ok_or_else(not_found)?,
            next_token: self.created_token(caller, Created::Builds, last),
            builds,
        })
    }

    fn created_after(
        &self,
        caller: &TeamCaller,
        of: Created,
        ask: &PageAsk,
    ) -> Result<Option<CreatedCursor>, InvalidCursor> {
        match ask.next_token.as_deref() {
            None | Some("") => Ok(None),
            Some(token) => cursor::decode_created(&self.keys, &caller.team.id, of, token).map(Some),
        }
    }

    fn created_token(
        &self,
        caller: &TeamCaller,
        of: Created,
        last: Option<CreatedCursor>,
    ) -> Option<String> {
        Some(cursor::encode_created(
            &self.keys,
            &caller.team.id,
            of,
            &last?,
        ))
    }
}

fn of_template(summary: &TemplateSummary) -> CreatedCursor {
    CreatedCursor {
        created_at: summary.template.created_at,
        id: summary.template.id.to_string(),
    }
}
