//! The agent of a sandbox, reached through its node.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use casemate_rpc::NodePort;
use casemate_types::SandboxId;
use envd_client::{Dial, Envd, HttpError, Wire};

/// Where it listens in every sandbox.
const PORT: u16 = 49983;

/// Opens nothing yet.
pub fn of(
    node: &Arc<dyn NodePort>,
    sandbox: &SandboxId,
    access_token: &str,
) -> Result<Envd, HttpError> {
    let dial = NodeDial {
        node: Arc::clone(node),
        sandbox: sandbox.clone(),
    };
    Envd::dialled(Arc::new(dial), Some(access_token))
}

struct NodeDial {
    node: Arc<dyn NodePort>,
    sandbox: SandboxId,
}

#[async_trait]
impl Dial for NodeDial {
    async fn dial(&self) -> io::Result<Box<dyn Wire>> {
        let dialled = self.node.dial(&self.sandbox, PORT).await;
        Ok(Box::new(dialled.map_err(io::Error::other)?.into_stream()?))
    }
}
