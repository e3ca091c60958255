//! How traffic from outside reaches a sandbox's services (`api.md` 3.2.3, 4.4, 4.6).

use serde::{Deserialize, Serialize};

/// Ports that a sandbox may name as speaking TLS.
pub const HTTPS_PORTS_MAX: usize = 64;

/// As asked for; checked once where it comes in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// `Some(false)`: every port but the agent's asks for the sandbox's traffic token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_public_traffic: Option<bool>,
    /// What services see as `Host`; `${PORT}` stands for the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_request_host: Option<String>,
    /// Ports whose services speak TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_ports: Option<Vec<u16>>,
}

impl Ingress {
    /// Whether traffic must carry the sandbox's token.
    pub fn is_private(&self) -> bool {
        self.allow_public_traffic == Some(false)
    }
}
