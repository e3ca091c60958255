//! What nodes and edges ask of this server.

use std::sync::Arc;

use async_trait::async_trait;
use casemate_control::Control;
use casemate_control::members::Members;
use casemate_control::sandboxes::wake::{self, WakeError};
use casemate_rpc::control::{
    Admitted, ControlError, ControlPort, JoinRequest, Knock, Member, NodeAddress, RenewRequest,
};
use casemate_types::{SandboxId, chain};
use tracing::warn;

pub(super) struct Calls {
    pub(super) control: Arc<Control>,
    pub(super) members: Arc<Members>,
}

#[async_trait]
impl ControlPort for Calls {
    async fn join(&self, request: JoinRequest) -> Result<Admitted, ControlError> {
        self.members.join(request).await
    }

    async fn renew(
        &self,
        caller: &Member,
        request: RenewRequest,
    ) -> Result<Admitted, ControlError> {
        self.members.renew(caller, request).await
    }

    async fn nodes(&self) -> Result<Vec<NodeAddress>, ControlError> {
        let nodes = self
            .members
            .nodes()
            .await
            .map_err(|error| unavailable(&error))?;
        let address = |node: casemate_store::Node| NodeAddress {
            node: node.id,
            address: node.address,
        };
        Ok(nodes.into_iter().map(address).collect())
    }

    async fn wake(&self, sandbox: &SandboxId, knock: Knock) -> Result<(), ControlError> {
        let (control, id) = (Arc::clone(&self.control), sandbox.clone());
        let waking = async move {
            let knock = wake::Knock {
                for_agent: knock.for_agent,
                access_token: knock.access_token.as_deref(),
                traffic_token: knock.traffic_token.as_deref(),
            };
            control.wake(&id, knock).await
        };
        match self.control.tasks().detached(waking).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(WakeError::NotFound)) => Err(ControlError::NotWoken),
            Ok(Err(WakeError::Denied)) => Err(ControlError::WakeDenied),
            Ok(Err(WakeError::Quota(reached))) => Err(ControlError::TeamLimit {
                text: casemate_api::quota_text(reached.max),
            }),
            Ok(Err(WakeError::Transitioning)) => Err(ControlError::Transitioning),
            Ok(Err(WakeError::Store(error))) => Err(unavailable(&error)),
            Err(lost) => Err(unavailable(&lost)),
        }
    }

    async fn home(&self, sandbox: &SandboxId) -> Result<Option<String>, ControlError> {
        let home = self.control.home(sandbox).await;
        home.map_err(|error| unavailable(&error))
    }
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> ControlError {
    warn!(error = chain(error), "a member cannot be served");
    ControlError::Unavailable {
        why: "the API server cannot do it now".into(),
    }
}
