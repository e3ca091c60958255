//! How traffic from outside reaches a sandbox's services (`api.md` 3.2.3, 4.4, 4.6).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// SHA-256 of a sandbox's traffic token: an edge compares with it and cannot tell the token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// As 64 hexadecimal digits.
impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(&text, &mut hash).map_err(serde::de::Error::custom)?;
        Ok(Self(hash))
    }
}

/// What an edge must know of a sandbox to let traffic in, kept by its node so that it is known where
/// the sandbox is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entrance {
    #[serde(default)]
    pub ingress: Ingress,
    /// What traffic must carry, where `ingress` says that it is private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_token: Option<TokenHash>,
}
