//! Builds of templates on their way: asked for, begun, ended; and what pages of templates say.
//!
//! ```text
//! request ─▶ waiting ─begin─▶ building ─finish─▶ ready
//!               └───────fail──────┴──────────▶ failed
//! ```
//!
//! A tag is given when a build is asked for and counts once it is ready: until then, and if it fails,
//! the tag leads to the one before ([`crate::Templates::template_resolve`]).

use std::time::Duration;

use async_trait::async_trait;
use casemate_types::{BuildFailure, BuildStatus, Resources, TeamId, TemplateId, Timestamp};

use crate::{Build, BuildId, StoreError, Template};

/// Builds that one call of [`Builds::build_forget_failed`] or [`Builds::build_forget_unused`] removes at
/// most; call again when it removed that many.
pub const FORGET_BUILDS_MAX: u32 = 500;

/// A build that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBuild {
    pub team: TeamId,
    /// Of the team.
    pub namespace: String,
    /// Without namespace. If it leads to no template of the team, one is made.
    pub alias: String,
    /// Given to the build, at least one.
    pub tags: Vec<String>,
    pub build: BuildId,
    /// The id of a template that is made.
    pub template: TemplateId,
    pub resources: Resources,
    pub at: Timestamp,
    /// Builds of the team that may be waiting or building, this one among them; those of the same
    /// template that share a tag with this one are not counted, nor are those asked for before
    /// `counted_from`.
    pub builds_max: u32,
    pub counted_from: Timestamp,
    /// The same for those that nobody began since.
    pub waiting_counted_from: Timestamp,
    /// What waiting builds of the template that share a tag fail of.
    pub superseded: BuildFailure,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildRequested {
    Done {
        template: TemplateId,
        public: bool,
    },
    /// The team has so many already; nothing was written.
    TooMany,
    /// The alias is the id of a template, or it is a snapshot's; nothing was written.
    AliasTaken,
}

/// A build as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecord {
    pub id: BuildId,
    pub template: TemplateId,
    pub status: BuildStatus,
    /// Of one that failed.
    pub failure: Option<BuildFailure>,
    pub resources: Resources,
    /// Of its whole root file system, MiB; known once it is ready.
    pub disk_size_mib: Option<u32>,
    /// Known once it is ready.
    pub envd_version: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// What became of a beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildBegun {
    /// It is building now, and these of the same template that share a tag were and are to be
    /// cancelled: their status is not changed here.
    Began {
        rivals: Vec<BuildId>,
    },
    /// It was begun or has ended before.
    NotWaiting,
    Unknown,
}

/// A template as a page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSummary {
    pub template: Template,
    /// With their namespaces (none for promoted ones), sorted.
    pub names: Vec<(Option<String>, String)>,
    pub updated_at: Timestamp,
    pub spawn_count: u64,
    pub last_spawned_at: Option<Timestamp>,
    /// How many were asked for.
    pub build_count: u32,
    /// The one that the default tag leads to.
    pub ready: Option<BuildRecord>,
    /// Of the last one that got the default tag, whatever came of it; `Waiting` when none did.
    pub status: BuildStatus,
}

/// Where a page of templates or builds begins: behind this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedCursor {
    pub created_at: Timestamp,
    /// Of the template or the build.
    pub id: String,
}

/// In which order templates are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateOrder {
    OldestFirst,
    NewestFirst,
}

/// A tag, and the build that got it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagAssignment {
    pub tag: String,
    pub build: BuildId,
    pub assigned_at: Timestamp,
}

/// One time that a build that is ready got a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagEvent {
    pub tag: String,
    pub build: BuildId,
    pub assigned_at: Timestamp,
    pub build_created_at: Timestamp,
    pub build_finished_at: Option<Timestamp>,
}

#[async_trait]
pub trait Builds {
    /// Writes a build that waits, with its template where that is new, its tags, and the failure of
    /// those that it supersedes. One transaction. [`StoreError::Exists`] when the build's id, or that
    /// of a template that is made, is taken; [`StoreError::Dangling`] when there is no such team.
    async fn build_request(&self, new: &NewBuild) -> Result<BuildRequested, StoreError>;

    /// Not of a template that was deleted.
    async fn build_record(&self, id: &BuildId) -> Result<Option<BuildRecord>, StoreError>;

    /// waiting → building, by this server.
    async fn build_begin(
        &self,
        id: &BuildId,
        owner: &str,
        at: Timestamp,
    ) -> Result<BuildBegun, StoreError>;

    /// building → ready, with everything that sandboxes are made from; `false` when it is not
    /// building any more, and nothing was written. May be repeated with the same moment where its
    /// outcome was in doubt. Its template, its resources and its creation stay
    /// what they were; [`Build::files`] is not kept, because what a build writes ends in its layers.
    async fn build_finish(
        &self,
        build: &Build,
        disk_size_mib: u32,
        at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// waiting or building → failed; `false` when it is neither, and nothing was written.
    async fn build_fail(
        &self,
        id: &BuildId,
        failure: &BuildFailure,
        at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// All that wait since before `before` → failed; which.
    async fn build_fail_waiting(
        &self,
        before: Timestamp,
        failure: &BuildFailure,
        at: Timestamp,
    ) -> Result<Vec<BuildId>, StoreError>;

    /// All that dead servers were building → failed; which. Alive are the caller and those that were
    /// heard of within this time. One that names no server is of a version that knew of no others: it
    /// fails when nobody but the caller is alive.
    async fn build_fail_building(
        &self,
        caller: &str,
        seen_within: Duration,
        failure: &BuildFailure,
        at: Timestamp,
    ) -> Result<Vec<BuildId>, StoreError>;

    /// Whether servers other than the caller are building anything.
    async fn build_has_others(&self, caller: &str) -> Result<bool, StoreError>;

    /// Those of a team that wait or build.
    async fn build_list_open(&self, team: &TeamId) -> Result<Vec<BuildId>, StoreError>;

    /// Which of these builds there are, whatever became of them; for whoever keeps more of builds
    /// elsewhere, such as their logs.
    async fn build_known(&self, ids: &[BuildId]) -> Result<Vec<BuildId>, StoreError>;

    /// Removes builds that failed before `before`, [`FORGET_BUILDS_MAX`] at most, with their places in
    /// the history of tags; how many.
    async fn build_forget_failed(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Removes builds of teams' templates, [`FORGET_BUILDS_MAX`] at most, to which nothing led since
    /// `before`, with their places in the history of tags; how many. One stays that is the newest of
    /// its template that is ready, that a tag leads to or led to until then, or that a sandbox is of
    /// that is not dead.
    async fn build_forget_unused(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Of a template, newest first, then by id from the greatest; `rows_max` at most.
    async fn build_page(
        &self,
        template: &TemplateId,
        after: Option<&CreatedCursor>,
        rows_max: u32,
    ) -> Result<Vec<BuildRecord>, StoreError>;

    /// A team's templates that were built, without snapshots; by creation, then by id in the same
    /// direction. `rows_max` at most.
    async fn template_page(
        &self,
        team: &TeamId,
        order: TemplateOrder,
        after: Option<&CreatedCursor>,
        rows_max: u32,
    ) -> Result<Vec<TemplateSummary>, StoreError>;

    /// Also of a snapshot; whoever's it is.
    async fn template_summary(
        &self,
        id: &TemplateId,
    ) -> Result<Option<TemplateSummary>, StoreError>;

    /// `false` when there is no such template, or it is a snapshot.
    async fn template_set_public(
        &self,
        id: &TemplateId,
        public: bool,
        at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Counts sandboxes that were made, with the time of the last; templates that are gone are left
    /// out.
    async fn template_spawned(
        &self,
        spawned: &[(TemplateId, u64, Timestamp)],
    ) -> Result<(), StoreError>;

    /// Gives a build of a template more tags; those that others have move to it, those that it has
    /// stay as they are. [`StoreError::Dangling`] when the template has no such build that is ready.
    async fn tags_assign(
        &self,
        template: &TemplateId,
        build: &BuildId,
        tags: &[String],
        at: Timestamp,
    ) -> Result<(), StoreError>;

    /// Takes tags away, with their history; those that are not there are no error. Builds stay, and
    /// are found by their ids.
    async fn tags_remove(&self, template: &TemplateId, tags: &[String]) -> Result<(), StoreError>;

    /// The platform's own templates that a promoted alias leads to, by id.
    async fn template_list_stock(&self) -> Result<Vec<TemplateSummary>, StoreError>;

    /// Each tag that a build that is ready has or had, with the last time that one got it; by tag.
    async fn tags_latest(
        &self,
        template: &TemplateId,
    ) -> Result<Vec<(String, Timestamp)>, StoreError>;

    /// When builds that are ready got these tags, `rows_max` times of each at most, and only before
    /// `before`; by tag, the latest first.
    async fn tags_history(
        &self,
        template: &TemplateId,
        tags: &[String],
        before: Option<Timestamp>,
        rows_max: u32,
    ) -> Result<Vec<TagEvent>, StoreError>;

    /// One entry for each tag, its last assignment whatever became of the build; by tag.
    async fn tags_list(&self, template: &TemplateId) -> Result<Vec<TagAssignment>, StoreError>;
}
