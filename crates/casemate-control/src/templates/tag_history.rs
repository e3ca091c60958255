//! When tags came to which builds: only what a tag really led to, so builds that are ready.

use std::cmp::Ordering;

use casemate_store::TagEvent;
use casemate_types::Timestamp;
use casemate_types::template::{TemplateRef, parse_new_tag};

use super::tags::TagsError;
use crate::Control;
use crate::auth::{TeamCaller, WhenBlocked};
use crate::cursor::{TagCursor, decode_tag, encode_tag};

/// In which order tags are shown. Of two that moved at one time the lesser name comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagOrder {
    /// The one that moved last first.
    LatestFirst,
    LatestLast,
    Name,
    NameBackwards,
}

/// Which tags are meant, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsAsk {
    /// Of each tag, at least 1.
    pub assignments_max: u32,
    /// At least 1.
    pub tags_max: u32,
    pub cursor: Option<String>,
    /// What their names have in them.
    pub search: Option<String>,
    pub order: TagOrder,
}

/// A tag with its latest assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagGroup {
    pub tag: String,
    /// The latest first.
    pub assignments: Vec<TagEvent>,
    pub has_more: bool,
}

/// A page of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagGroups {
    pub groups: Vec<TagGroup>,
    pub next_cursor: Option<String>,
}

/// Of a page of one tag's assignments.
const ASSIGNMENTS: &str = "a1";

impl TagOrder {
    /// Of its page tokens.
    fn word(self) -> &'static str {
        match self {
            Self::LatestFirst => "g1d",
            Self::LatestLast => "g1a",
            Self::Name => "g1n",
            Self::NameBackwards => "g1b",
        }
    }

    fn compare(self, one: &TagCursor, other: &TagCursor) -> Ordering {
        let by_name = one.tag.cmp(&other.tag);
        match self {
            Self::LatestFirst => other.at.cmp(&one.at).then(by_name),
            Self::LatestLast => one.at.cmp(&other.at).then(by_name),
            Self::Name => by_name,
            Self::NameBackwards => by_name.reverse(),
        }
    }
}

impl Control {
    /// A page of the tags of a template of the caller's, each with its latest assignments.
    pub async fn tag_groups(
        &self,
        caller: &TeamCaller,
        text: &str,
        ask: &GroupsAsk,
    ) -> Result<TagGroups, TagsError> {
        let (keys, team, word) = (&self.keys, &caller.team.id, ask.order.word());
        let reference = TemplateRef::parse(text).map_err(TagsError::Reference)?;
        let after = ask
            .cursor
            .as_deref()
            .map(|token| decode_tag(keys, team, word, token));
        let after = after.transpose()?;
        let template = self
            .tagged(caller, &reference, WhenBlocked::Allowed)
            .await?;
        let latest = self.store.tags_latest(&template.id).await?.into_iter();
        let search = ask.search.as_deref().unwrap_or_default();
        let mut tags: Vec<TagCursor> = latest
            .map(|(tag, at)| TagCursor { at, tag })
            .filter(|one| one.tag.contains(search))
            .filter(|one| {
                let behind = |after| ask.order.compare(one, after).is_gt();
                after.as_ref().is_none_or(behind)
            })
            .collect();
        tags.sort_by(|one, other| ask.order.compare(one, other));
        let (tags, next) = page(tags, ask.tags_max);
        let names: Vec<String> = tags.iter().map(|one| one.tag.clone()).collect();
        let rows_max = ask.assignments_max.saturating_add(1);
        let events = self
            .store
            .tags_history(&template.id, &names, None, rows_max)
            .await?;
        let groups = names.into_iter().map(|tag| {
            let own = events.iter().filter(|event| event.tag == tag).cloned();
            let (assignments, next) = page(own.collect(), ask.assignments_max);
            TagGroup {
                tag,
                assignments,
                has_more: next.is_some(),
            }
        });
        Ok(TagGroups {
            groups: groups.collect(),
            next_cursor: next.map(|last| encode_tag(keys, team, word, &last)),
        })
    }

    /// A page of the assignments of one tag, the latest first, and how to go on. None of a tag that
    /// the template has not.
    pub async fn tag_assignments(
        &self,
        caller: &TeamCaller,
        text: &str,
        tag: &str,
        cursor: Option<&str>,
        rows_max: u32,
    ) -> Result<(Vec<TagEvent>, Option<String>), TagsError> {
        let (keys, team) = (&self.keys, &caller.team.id);
        let reference = TemplateRef::parse(text).map_err(TagsError::Reference)?;
        let tag = parse_new_tag(tag).map_err(TagsError::Tag)?;
        let after = cursor.map(|token| decode_tag(keys, team, ASSIGNMENTS, token));
        let before: Option<Timestamp> = after.transpose()?.map(|after| after.at);
        let template = self
            .tagged(caller, &reference, WhenBlocked::Allowed)
            .await?;
        let asked = std::slice::from_ref(&tag);
        let more = rows_max.saturating_add(1);
        let events = self
            .store
            .tags_history(&template.id, asked, before, more)
            .await?;
        let (events, next) = page(events, rows_max);
        let next = next.map(|last| TagCursor {
            at: last.assigned_at,
            tag,
        });
        Ok((
            events,
            next.map(|last| encode_tag(keys, team, ASSIGNMENTS, &last)),
        ))
    }
}

/// The first of `all`, and the last of them where there are more.
fn page<T: Clone>(mut all: Vec<T>, rows_max: u32) -> (Vec<T>, Option<T>) {
    let rows_max = usize::try_from(rows_max).unwrap_or(usize::MAX);
    let is_last = all.len() <= rows_max;
    all.truncate(rows_max);
    let last = if is_last { None } else { all.last().cloned() };
    (all, last)
}
