//! Every derived key, from one root secret (decision 27).
//!
//! HKDF-SHA256 with a label for each purpose: knowing one key tells nothing of another, and a
//! lost database tells none. Changing a label invalidates what was issued under it.

use casemate_types::{SandboxId, TeamId};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

const ROOT_BYTES_MIN: usize = 32;
/// Bytes of a cursor's tag: enough that guessing is no way in, short enough for a header.
const CURSOR_TAG_BYTES: usize = 16;

/// The root of all derived keys. It has no `Debug` on purpose.
pub struct RootSecret(Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the root secret has {0} bytes, at least {ROOT_BYTES_MIN} are needed")]
pub struct RootSecretTooShort(usize);

impl RootSecret {
    pub fn new(bytes: Vec<u8>) -> Result<Self, RootSecretTooShort> {
        if bytes.len() < ROOT_BYTES_MIN {
            return Err(RootSecretTooShort(bytes.len()));
        }
        Ok(Self(bytes))
    }
}

/// The derived keys.
pub struct Keys {
    envd_seed: [u8; 32],
    traffic_seed: [u8; 32],
    cursor: [u8; 32],
}

impl Keys {
    pub fn derive(root: &RootSecret) -> Self {
        let hkdf = Hkdf::<Sha256>::new(None, &root.0);
        let key = |label: &str| {
            let mut out = [0; 32];
            hkdf.expand(label.as_bytes(), &mut out)
                .expect("32 bytes are within what HKDF-SHA256 gives");
            out
        };
        Self {
            envd_seed: key("casemate/v1/envd-token"),
            traffic_seed: key("casemate/v1/traffic-token"),
            cursor: key("casemate/v1/page-cursor"),
        }
    }

    /// What the agent of a sandbox asks of its clients. Stable for the life of the id.
    pub fn envd_token(&self, sandbox: &SandboxId) -> String {
        hex::encode(tag(&self.envd_seed, &[sandbox.as_str().as_bytes()]))
    }

    /// What a sandbox that is closed to the public asks of traffic to its ports.
    pub fn traffic_token(&self, sandbox: &SandboxId) -> String {
        let parts: [&[u8]; 2] = [b"sandbox-traffic-", sandbox.as_str().as_bytes()];
        hex::encode(tag(&self.traffic_seed, &parts))
    }

    /// Binds a cursor to the team that it was issued to.
    pub(crate) fn cursor_tag(&self, team: &TeamId, cursor: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 3] = [team.as_str().as_bytes(), b"/", cursor];
        tag(&self.cursor, &parts)[..CURSOR_TAG_BYTES].to_vec()
    }

    pub(crate) fn cursor_fits(&self, team: &TeamId, cursor: &[u8], given: &[u8]) -> bool {
        self.cursor_tag(team, cursor).ct_eq(given).into()
    }
}

fn tag(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(byte: u8) -> Keys {
        Keys::derive(&RootSecret::new(vec![byte; 32]).unwrap())
    }

    #[test]
    fn tokens_are_stable_and_differ_by_sandbox_purpose_and_root() {
        let (a, b) = (SandboxId::random(), SandboxId::random());
        let token = keys(1).envd_token(&a);
        assert_eq!(token.len(), 64);
        assert!(
            token
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        );
        assert_eq!(token, keys(1).envd_token(&a));
        assert_ne!(token, keys(1).envd_token(&b));
        assert_ne!(token, keys(1).traffic_token(&a));
        assert_ne!(token, keys(2).envd_token(&a));
    }

    #[test]
    fn the_derivation_never_changes() {
        // Tokens of running sandboxes outlive an upgrade: this value was computed apart, by
        // HKDF-SHA256 and HMAC-SHA256 of Python's standard library.
        let id = SandboxId::parse("i0123456789abcdefghij").unwrap();
        assert_eq!(
            keys(7).envd_token(&id),
            include_str!("keys/envd_token.txt").trim()
        );
    }

    #[test]
    fn a_short_root_is_refused() {
        assert_eq!(
            RootSecret::new(vec![0; 31]).err(),
            Some(RootSecretTooShort(31))
        );
    }
}
