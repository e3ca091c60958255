//! What a team reads of one build: where it stands, and its log.

use casemate_history::{
    BuildLogEntry, BuildLogPage, BuildLogRange, HistoryError, LogDirection, LogLevel,
};
use casemate_store::{BuildId, BuildRecord, StoreError};
use casemate_types::limits::BUILD_LOG_LINES_MAX;
use casemate_types::template::TemplateRef;
use casemate_types::{BuildStatus, TeamId, TemplateId, Timestamp, chain};

use super::owned::{Asker, Owned};
use crate::Control;
use crate::auth::WhenBlocked;

/// Which lines a client wants with the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusAsk {
    /// Lines of [`StatusAsk::level_min`] that it has already.
    pub offset: u64,
    /// Cut at [`BUILD_LOG_LINES_MAX`].
    pub limit: u32,
    pub level_min: LogLevel,
}

/// A build as it stands, and the next lines of its log.
#[derive(Debug)]
pub struct BuildView {
    pub record: BuildRecord,
    pub lines: Vec<BuildLogEntry>,
    /// Warnings and errors of the step that failed, the last [`BUILD_LOG_LINES_MAX`] at most.
    pub of_failed_step: Vec<BuildLogEntry>,
}

/// Which lines a client wants by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildLogsAsk {
    /// Forward from it on, backward from it back; `None` is the oldest, or now.
    pub cursor: Option<Timestamp>,
    pub direction: LogDirection,
    /// Cut at [`BUILD_LOG_LINES_MAX`].
    pub limit: u32,
    pub level_min: LogLevel,
}

/// The texts are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum ReadBuildError {
    #[error("Invalid build id")]
    Id,
    #[error("Build '{0}' not found")]
    NotFound(BuildId),
    #[error("You don't have access to this sandbox template ({0})")]
    NotYours(String),
    #[error("look for a build")]
    Store(#[from] StoreError),
    #[error("read the log of a build")]
    History(#[from] HistoryError),
}

impl Control {
    /// Where a build stands. The status is as it was before the lines were read: what is over has no
    /// line that comes later.
    pub async fn build_status(
        &self,
        asker: &Asker,
        template: &str,
        build: &str,
        ask: StatusAsk,
    ) -> Result<BuildView, ReadBuildError> {
        let (team, record) = self.readable_build(asker, template, build).await?;
        let lines = match record.status {
            BuildStatus::Waiting => Ok(Vec::new()),
            BuildStatus::Building | BuildStatus::Ready | BuildStatus::Failed => {
                let page = BuildLogPage {
                    team: team.clone(),
                    build: record.id.to_string(),
                    level_min: ask.level_min,
                    offset: ask.offset,
                    rows_max: ask.limit.min(BUILD_LOG_LINES_MAX),
                };
                self.history.build_logs_page(&page).await
            }
        };
        let of_failed_step = self.of_failed_step(&record, team).await;
        // Clients build by asking this again and again: what is only lines must not end that. They ask
        // for those that they missed next.
        let told = |lines: Result<Vec<BuildLogEntry>, HistoryError>| {
            lines.unwrap_or_else(|error| {
                tracing::warn!(
                    build.id = build,
                    error = chain(&error),
                    "the status of a build is told without its lines"
                );
                Vec::new()
            })
        };
        let (lines, of_failed_step) = (told(lines), told(of_failed_step));
        Ok(BuildView {
            record,
            lines,
            of_failed_step,
        })
    }

    /// Whatever page of its log is asked for: E2B looks in that page alone, in which they seldom are
    /// when the log is long.
    async fn of_failed_step(
        &self,
        record: &BuildRecord,
        team: TeamId,
    ) -> Result<Vec<BuildLogEntry>, HistoryError> {
        let failure = record.failure.as_ref();
        let Some(step) = failure.and_then(|failure| failure.step.as_ref()) else {
            return Ok(Vec::new());
        };
        let range = BuildLogRange {
            team,
            build: record.id.to_string(),
            cursor: Timestamp::MAX,
            direction: LogDirection::Backward,
            level_min: LogLevel::Warn,
            rows_max: BUILD_LOG_LINES_MAX,
        };
        let mut lines = self.history.build_logs_range(&range).await?;
        lines.retain(|line| line.step.as_ref() == Some(step));
        lines.reverse();
        Ok(lines)
    }

    /// Lines of a build by time.
    pub async fn build_logs(
        &self,
        asker: &Asker,
        template: &str,
        build: &str,
        ask: BuildLogsAsk,
    ) -> Result<Vec<BuildLogEntry>, ReadBuildError> {
        let (team, record) = self.readable_build(asker, template, build).await?;
        if record.status == BuildStatus::Waiting {
            return Ok(Vec::new());
        }
        let range = BuildLogRange {
            team,
            build: record.id.to_string(),
            cursor: ask.cursor.unwrap_or_else(|| match ask.direction {
                LogDirection::Forward => Timestamp::UNIX_EPOCH,
                LogDirection::Backward => Timestamp::now(),
            }),
            direction: ask.direction,
            level_min: ask.level_min,
            rows_max: ask.limit.min(BUILD_LOG_LINES_MAX),
        };
        Ok(self.history.build_logs_range(&range).await?)
    }

    /// A build, and the team whose it is, if the asker may read it.
    async fn readable_build(
        &self,
        asker: &Asker,
        template: &str,
        build: &str,
    ) -> Result<(TeamId, BuildRecord), ReadBuildError> {
        let id = BuildId::parse(build).map_err(|_| ReadBuildError::Id)?;
        let not_found = || ReadBuildError::NotFound(id);
        let record = self.store.build_record(&id).await?.ok_or_else(not_found)?;
        let found = self.store.template_by_id(&record.template).await?;
        let found = found.ok_or_else(not_found)?;
        if found.id.as_str() != template && !self.is_name_of(asker, template, &found.id).await? {
            return Err(not_found());
        }
        match found.owner {
            Some(owner) if self.acts_for(asker, Some(&owner)).await? => Ok((owner, record)),
            Some(_) | None => Err(ReadBuildError::NotYours(found.id.to_string())),
        }
    }

    /// Clients ask by id; a name that leads to it is as good.
    async fn is_name_of(
        &self,
        asker: &Asker,
        text: &str,
        id: &TemplateId,
    ) -> Result<bool, StoreError> {
        let Ok(reference) = TemplateRef::parse(text) else {
            return Ok(false);
        };
        let owned = self.owned(asker, &reference, WhenBlocked::Allowed).await?;
        Ok(matches!(owned, Owned::Yes(_, found) if found.id == *id))
    }
}
