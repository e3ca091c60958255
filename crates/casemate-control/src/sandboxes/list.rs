//! Lists of sandboxes: filters, pages, cursors (`api.md` 1.2, 3.4, 3.5).

use std::collections::BTreeMap;

use casemate_store::{Cursor, Order, Page, Sandbox, SandboxFilter, Store, StoreError};
use casemate_types::limits::PAGE_ROWS_MAX;
use casemate_types::sandbox::PublicState;
use casemate_types::template::{TemplateRef, TemplateRefError};
use casemate_types::{TemplateId, Timestamp, steady};

use super::{SandboxView, Shown};
use crate::Control;
use crate::auth::TeamCaller;
use crate::cursor::{self, InvalidCursor};
use crate::keys::Keys;

/// What a client wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSandboxes {
    pub states: Vec<PublicState>,
    pub metadata: BTreeMap<String, String>,
    pub template: Option<String>,
    pub started_after: Option<Timestamp>,
    pub order: Order,
    /// 1 to [`PAGE_ROWS_MAX`].
    pub limit: u32,
    /// As it was issued; `None` is the first page.
    pub next_token: Option<String>,
}

/// A page, and how to go on.
pub struct SandboxPage {
    pub sandboxes: Vec<SandboxView>,
    pub next_token: Option<String>,
    /// Running ones that match, before paging; only when running ones were asked for.
    pub running: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("Invalid next token")]
    Cursor(#[from] InvalidCursor),
    #[error("Invalid template: {0}")]
    Template(#[from] TemplateRefError),
    #[error("Invalid template: tags are not supported here, remove ':{tag}'")]
    TemplateTag { tag: String },
    #[error("the store failed in a list")]
    Store(#[from] StoreError),
}

/// Which rows of a list: some that match, and from where on.
#[derive(Debug, Clone, Copy)]
pub struct RowsAsk<'a> {
    pub filter: &'a SandboxFilter,
    pub order: Order,
    /// 1 to [`PAGE_ROWS_MAX`].
    pub limit: u32,
    /// As it was issued; `None` is the first page.
    pub token: Option<&'a str>,
}

/// Rows of one page, and the token of the next.
pub async fn rows(
    store: &dyn Store,
    keys: &Keys,
    ask: &RowsAsk<'_>,
) -> Result<(Vec<Sandbox>, Option<String>), ListError> {
    let team = &ask.filter.team;
    let after = match ask.token {
        None | Some("") => None,
        Some(token) => Some(cursor::decode(keys, team, ask.order, token)?),
    };
    let limit = ask.limit.clamp(1, PAGE_ROWS_MAX);
    let page = Page {
        order: ask.order,
        after,
        rows_max: limit + 1,
    };
    let mut rows = store.sandbox_page(ask.filter, &page).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_token = rows.last().filter(|_| more).map(|last| {
        let cursor = Cursor {
            started_at: last.started_at,
            id: last.id.clone(),
        };
        cursor::encode(keys, team, ask.order, &cursor)
    });
    Ok((rows, next_token))
}

impl Control {
    /// One page of the caller's sandboxes.
    pub async fn list_sandboxes(
        &self,
        caller: &TeamCaller,
        ask: &ListSandboxes,
    ) -> Result<SandboxPage, ListError> {
        self.page(caller, ask, wants_running(ask)).await
    }

    async fn page(
        &self,
        caller: &TeamCaller,
        ask: &ListSandboxes,
        counts: bool,
    ) -> Result<SandboxPage, ListError> {
        let template = match ask.template.as_deref() {
            None => None,
            Some(text) => match self.filter_template(caller, text).await? {
                Some(id) => Some(id),
                None => return Ok(empty(ask)),
            },
        };
        let filter = SandboxFilter {
            team: caller.team.id.clone(),
            states: ask.states.clone(),
            metadata: ask.metadata.clone(),
            template,
            started_after: ask.started_after.map(steady::from_wall),
        };
        let part = RowsAsk {
            filter: &filter,
            order: ask.order,
            limit: ask.limit,
            token: ask.next_token.as_deref(),
        };
        let (rows, next_token) = rows(&*self.store, &self.keys, &part).await?;
        let running = if counts {
            let filter = SandboxFilter {
                states: vec![PublicState::Running],
                ..filter
            };
            Some(self.store.sandbox_count(&filter).await?)
        } else {
            None
        };
        let now = steady::now();
        // A pause that goes on, or has just begun by itself, shows before the row says so: until then
        // it is in no list of one state.
        let wanted = |view: &SandboxView| {
            ask.states.contains(&match view.shown {
                Shown::Running => PublicState::Running,
                Shown::Paused(_) => PublicState::Paused,
            })
        };
        let sandboxes = rows.into_iter().filter_map(|row| self.view(row, now));
        let sandboxes = sandboxes.filter(wanted);
        Ok(SandboxPage {
            sandboxes: sandboxes.collect(),
            next_token,
            running,
        })
    }

    /// Every running sandbox of the caller's team, newest first (`GET /sandboxes`).
    pub async fn list_all_sandboxes(
        &self,
        caller: &TeamCaller,
        metadata: BTreeMap<String, String>,
    ) -> Result<Vec<SandboxView>, ListError> {
        let mut ask = ListSandboxes {
            states: vec![PublicState::Running],
            metadata,
            template: None,
            started_after: None,
            order: Order::NewestFirst,
            limit: PAGE_ROWS_MAX,
            next_token: None,
        };
        let mut all = Vec::new();
        loop {
            // Nobody asks how many match, which counts them all.
            let page = self.page(caller, &ask, false).await?;
            all.extend(page.sandboxes);
            match page.next_token {
                Some(token) => ask.next_token = Some(token),
                None => return Ok(all),
            }
        }
    }

    /// `None`: there is no such template, so nothing can match.
    async fn filter_template(
        &self,
        caller: &TeamCaller,
        text: &str,
    ) -> Result<Option<TemplateId>, ListError> {
        let reference = TemplateRef::parse(text)?;
        if text.contains(':') {
            return Err(ListError::TemplateTag { tag: reference.tag });
        }
        let found = self.template_named(caller, &reference).await?;
        Ok(found.map(|template| template.id))
    }
}

fn wants_running(ask: &ListSandboxes) -> bool {
    ask.states.contains(&PublicState::Running)
}

fn empty(ask: &ListSandboxes) -> SandboxPage {
    SandboxPage {
        sandboxes: Vec::new(),
        next_token: None,
        running: wants_running(ask).then_some(0),
    }
}
