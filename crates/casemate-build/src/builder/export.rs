//! Takes the files of a template out, as one layer of an image.
//!
//! They are read inside a sandbox of the template, where whatever a file pretends to be concerns nobody
//! else. Neither the start command runs in it, nor can it reach anything; the operator's own layer is
//! not in it, so that his settings stay here.

use std::sync::Arc;

use bytes::Bytes;
use casemate_rpc::NodePort;
use casemate_store::Build;
use casemate_types::{NetworkPolicy, TeamId};
use envd_client::{EnvdError, RpcCode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::sandbox::Maker;
use super::turns::Asked;
use super::work::Begun;
use super::{BUILD_LIMIT, BuildError, Builder, Hold, ground};

/// What names an export where builds name a step.
const STEP: &str = "export";

/// What is taken out, and for whom.
#[derive(Debug, Clone)]
pub struct Export {
    pub team: TeamId,
    pub build: Build,
}

impl Builder {
    /// Sends a plain tar of a template's files, piece by piece. Waits for its turn among builds, and is
    /// over when nobody takes the pieces any more. Only after `Ok` all of it was sent. Leaves no
    /// sandbox behind, whatever happens. [`BuildError::Recipe`]: there are files that can be in no image.
    ///
    /// # Cancel safety
    /// None: it is ended by `cancel`.
    pub async fn export(
        &self,
        export: &Export,
        node: &Arc<dyn NodePort>,
        pieces: mpsc::Sender<Bytes>,
        cancel: &CancellationToken,
    ) -> Result<(), BuildError> {
        let mut hold = self.held.hold();
        let begun = Begun::default();
        let mut turn = None;
        let work = async {
            turn = Some(match self.turns.ask(&export.team) {
                Asked::Now(turn) => turn,
                Asked::Later(waits) => {
                    let turn = waits.await;
                    turn.map_err(|error| BuildError::Internal(error.to_string()))?
                }
            });
            let packed = self.pack(export, node, pieces, &mut hold, &begun);
            let packed = tokio::time::timeout(BUILD_LIMIT, packed).await;
            packed.unwrap_or(Err(BuildError::TimedOut))
        };
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = cancel.cancelled() => Err(BuildError::Cancelled),
        };
        begun.end().await;
        drop(turn);
        outcome
    }

    async fn pack(
        &self,
        export: &Export,
        node: &Arc<dyn NodePort>,
        pieces: mpsc::Sender<Bytes>,
        hold: &mut Hold,
        begun: &Begun,
    ) -> Result<(), BuildError> {
        let build = &export.build;
        let state = ground::of_template(build, false, 0);
        hold.state(&state);
        let closed = NetworkPolicy {
            allow_internet_access: Some(false),
            ..NetworkPolicy::default()
        };
        let closed = closed.compile();
        let maker = Maker {
            node: Arc::clone(node),
            team: export.team.clone(),
            template: build.template.clone(),
            resources: build.resources,
            network: closed.map_err(|error| BuildError::Internal(error.to_string()))?,
            creator: self.creator.clone(),
        };
        let planned = maker.plan_bare(&state)?;
        hold.sandbox(planned.id());
        let sandbox = Arc::new(planned.make());
        begun.add(&sandbox);
        sandbox.ready().await?;
        let archive = sandbox.envd().root_open().await;
        let mut archive = archive.map_err(of_files)?;
        while let Some(piece) = archive.chunk().await? {
            if pieces.send(piece).await.is_err() {
                return Err(BuildError::Cancelled);
            }
        }
        Ok(())
    }
}

/// What the agent has against the template's own files is for whoever made them.
fn of_files(error: EnvdError) -> BuildError {
    match error {
        EnvdError::Refused {
            code: RpcCode::InvalidArgument | RpcCode::ResourceExhausted,
            message,
        } => BuildError::recipe(STEP, message),
        error => error.into(),
    }
}
