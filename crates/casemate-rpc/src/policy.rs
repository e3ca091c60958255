//! A network policy in a few bytes, for comparing what a node enforces with what was promised.

use casemate_types::CompiledPolicy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Sixteen hexadecimal digits of the policy's SHA-256, over its JSON. A version that knows more of a
/// policy may have another one for the same: it is then told once more, which changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyDigest(String);

impl PolicyDigest {
    pub fn of(policy: &CompiledPolicy) -> Self {
        let json = serde_json::to_vec(policy).expect("lists of addresses and names are JSON");
        Self(hex::encode(&Sha256::digest(json)[..8]))
    }
}
