//! Beginning a build. (Stands in for the file that runs them.)

use std::sync::Arc;

use casemate_build::recipe::Recipe;
use casemate_store::{BuildBegun, BuildId, StoreError};
use casemate_types::{BuildFailure, TemplateId, Timestamp, chain};

use super::cancel::cancelled;
use crate::Control;
use crate::auth::TeamCaller;

/// What a client starts a build with.
#[derive(Debug, Clone)]
pub struct StartBuild {
    pub recipe: Recipe,
    /// Its SDK expects steps to run as `user` (`templates.md` 2.2.4, build version 2.1.0).
    pub sets_user: bool,
}

/// Why a build was not started. The texts are E2B's.
#[derive(Debug, thiserror::Error)]
pub enum StartBuildError {
    #[error("Invalid build ID: {0}")]
    InvalidBuildId(String),
    #[error("build is not in waiting state")]
    NotWaiting,
    #[error("User does not have access to the template")]
    NotYours,
    #[error("Error when getting template: there is no build {0} of this template")]
    NotFound(String),
    /// The build has failed of it.
    #[error("Error when starting template build: {0}")]
    Source(&'static str),
    #[error("Error when getting available build client")]
    Unavailable,
    #[error("the store failed at the start of a build")]
    Store(#[from] StoreError),
}

impl Control {
    pub async fn start_build(
        self: &Arc<Self>,
        caller: &TeamCaller,
        template: &str,
        build: &str,
        ask: StartBuild,
    ) -> Result<(), StartBuildError> {
        let invalid = |_| StartBuildError::InvalidBuildId(build.to_owned());
        let id = BuildId::parse(build).map_err(invalid)?;
        let not_found = || StartBuildError::NotFound(build.to_owned());
        let template = TemplateId::parse(template).map_err(|_| not_found())?;
        let found = self.store.template_by_id(&template).await?;
        if found.ok_or_else(not_found)?.owner.as_ref() != Some(&caller.team.id) {
            return Err(StartBuildError::NotYours);
        }
        let record = self.store.build_record(&id).await?;
        record
            .filter(|record| record.template == template)
            .ok_or_else(not_found)?;
        if self.node_name().is_none() {
            return Err(StartBuildError::Unavailable);
        }
        let now = Timestamp::now();
        match self.store.build_begin(&id, now).await? {
            BuildBegun::Began { rivals } => self.cancel_builds(&rivals, cancelled()).await,
            BuildBegun::NotWaiting => return Err(StartBuildError::NotWaiting),
            BuildBegun::Unknown => return Err(not_found()),
        }
        let why = match (&ask.recipe.from_image, &ask.recipe.from_template) {
            (Some(_), Some(_)) => "cannot specify both fromImage and fromTemplate",
            (None, None) => "must specify either fromImage or fromTemplate",
            _ => return Ok(()),
        };
        let failure = BuildFailure {
            message: format!("error when building env: {why}"),
            step: None,
        };
        self.store.build_fail(&id, &failure, now).await?;
        Err(StartBuildError::Source(why))
    }

    pub(crate) async fn cancel_builds(&self, builds: &[BuildId], failure: BuildFailure) {
        for build in builds {
            let failed = self
                .store
                .build_fail(build, &failure, Timestamp::now())
                .await;
            if let Err(error) = failed {
                tracing::warn!(build.id = %build, error = chain(&error), "could not cancel build {build}");
            }
        }
    }
}
