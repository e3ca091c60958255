//! What answers of nodes, API servers and catalogs are to an edge.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use casemate_edge::{
    DialFailure, Dialer, Dialled, Knock, RouteTarget, TrafficToken, WakeFailure, Wire,
};
use casemate_rpc::control::{self, ControlError};
use casemate_rpc::{NodeError, NodePort, SandboxStream};
use casemate_tls::ServiceTls;
use casemate_types::{Entrance, SandboxId};

/// What a sandbox that runs asks of its traffic. `None`: it is private, and nobody said with which
/// token; then nothing may be let in.
pub fn running(entrance: Entrance) -> Option<RouteTarget> {
    let Entrance {
        ingress,
        traffic_token,
    } = entrance;
    let traffic_token = match (ingress.is_private(), traffic_token) {
        (true, None) => return None,
        (true, Some(hash)) => Some(TrafficToken::from(hash)),
        (false, _) => None,
    };
    Some(RouteTarget::Running {
        traffic_token,
        mask_host: ingress.mask_request_host,
        https_ports: ingress.https_ports.unwrap_or_default(),
    })
}

/// A connection into a sandbox, or why there is none.
pub fn dialled(answer: Result<casemate_rpc::Dialled, NodeError>) -> Result<Dialled, DialFailure> {
    match answer {
        Ok(dialled) => Ok(match dialled.into_stream()? {
            SandboxStream::Near(socket) => Dialled::Socket(socket),
            SandboxStream::Far(stream) => Dialled::Bytes(Box::new(stream)),
        }),
        Err(NodeError::NotFound(_)) => Err(DialFailure::NotFound),
        Err(NodeError::Paused(_)) => Err(DialFailure::Paused),
        Err(NodeError::PortClosed { .. }) => Err(DialFailure::PortClosed),
        Err(error) => Err(DialFailure::Node(Box::new(error))),
    }
}

pub(crate) fn knock(knock: &Knock) -> control::Knock {
    let bytes = |token: &Option<http::HeaderValue>| {
        let token = token.as_ref();
        token.map(|token| token.as_bytes().to_vec())
    };
    control::Knock {
        for_agent: knock.for_agent,
        access_token: bytes(&knock.access_token),
        traffic_token: bytes(&knock.traffic_token),
    }
}

pub(crate) fn not_woken(error: ControlError) -> WakeFailure {
    match error {
        ControlError::NotWoken => WakeFailure::NotFound,
        ControlError::WakeDenied => WakeFailure::Denied,
        ControlError::TeamLimit { text } => WakeFailure::TeamLimit(text),
        ControlError::Transitioning => WakeFailure::Transitioning,
        ControlError::NotAdmitted { .. }
        | ControlError::Invalid { .. }
        | ControlError::Unavailable { .. }
        | ControlError::Unreachable => WakeFailure::Failed(Box::new(error)),
    }
}

/// Connections into the sandboxes of one node.
pub struct NodeDialer {
    node: Arc<dyn NodePort>,
    services: ServiceTls,
}

impl NodeDialer {
    pub fn new(node: Arc<dyn NodePort>) -> Self {
        Self {
            node,
            services: ServiceTls::default(),
        }
    }
}

#[async_trait]
impl Dialer for NodeDialer {
    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, DialFailure> {
        dialled(self.node.dial(sandbox, port).await)
    }

    async fn speak_tls(&self, stream: Box<dyn Wire>, host: &str) -> io::Result<Box<dyn Wire>> {
        Ok(Box::new(self.services.connect(stream, host).await?))
    }
}

#[cfg(test)]
mod tests {
    use casemate_types::{Ingress, TokenHash};

    use super::*;

    #[test]
    fn a_private_sandbox_whose_token_nobody_said_is_closed() {
        let entrance = |public: Option<bool>, token: Option<u8>| Entrance {
            ingress: Ingress {
                allow_public_traffic: public,
                ..Ingress::default()
            },
            traffic_token: token.map(|byte| TokenHash([byte; 32])),
        };
        assert!(running(entrance(Some(false), None)).is_none());
        for (public, token, asks) in [
            (Some(false), Some(1), true),
            (Some(true), Some(1), false),
            (None, None, false),
        ] {
            let Some(RouteTarget::Running { traffic_token, .. }) = running(entrance(public, token))
            else {
                panic!("{public:?} {token:?}");
            };
            assert_eq!(traffic_token.is_some(), asks, "{public:?} {token:?}");
        }
    }
}
