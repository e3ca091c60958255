//! Every derived key, from one root secret (decision 27).
//!
//! HKDF-SHA256 with a label for each purpose: knowing one key tells nothing of another, and a
//! lost database tells none. Changing a label invalidates what was issued under it.

use std::collections::BTreeMap;

use casemate_types::{Entrance, Ingress, SandboxId, TeamId, TokenHash};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
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
    upload: [u8; 32],
    envs: [u8; 32],
    authority: [u8; 32],
    check: [u8; 32],
    admin: [u8; 32],
    first: [u8; 32],
}

/// Of XChaCha20: long enough to be random for each message.
const NONCE_BYTES: usize = 24;

/// What is sealed cannot be opened: it is of another root secret, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is sealed cannot be opened")]
pub struct Unopened;

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
            upload: key("casemate/v1/upload-link"),
            envs: key("casemate/v1/sandbox-envs"),
            authority: key("casemate/v1/cluster-authority"),
            check: key("casemate/v1/secret-check"),
            admin: key("casemate/v1/admin-token"),
            first: key("casemate/v1/first-credentials"),
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

    /// What edges compare a private sandbox's traffic with.
    pub(crate) fn traffic_token_hash(
        &self,
        sandbox: &SandboxId,
        ingress: &Ingress,
    ) -> Option<TokenHash> {
        let token = || self.traffic_token(sandbox);
        ingress
            .is_private()
            .then(|| TokenHash(Sha256::digest(token()).into()))
    }

    /// What its node is told of how its traffic comes in.
    pub(crate) fn entrance(&self, sandbox: &SandboxId, ingress: &Ingress) -> Entrance {
        Entrance {
            ingress: ingress.clone(),
            traffic_token: self.traffic_token_hash(sandbox, ingress),
        }
    }

    /// A sandbox's variables as they are kept: XChaCha20-Poly1305 over their JSON, bound to the id;
    /// nonce first. `None` for none.
    pub(crate) fn seal_envs(
        &self,
        sandbox: &SandboxId,
        envs: &BTreeMap<String, String>,
    ) -> Option<Vec<u8>> {
        if envs.is_empty() {
            return None;
        }
        let text = serde_json::to_vec(envs).expect("a map of strings always serializes");
        Some(seal(&self.envs, sandbox.as_str().as_bytes(), &text))
    }

    pub(crate) fn open_envs(
        &self,
        sandbox: &SandboxId,
        sealed: Option<&[u8]>,
    ) -> Result<BTreeMap<String, String>, Unopened> {
        let Some(sealed) = sealed else {
            return Ok(BTreeMap::new());
        };
        let text = open(&self.envs, sandbox.as_str().as_bytes(), sealed)?;
        serde_json::from_slice(&text).map_err(|_| Unopened)
    }

    /// The record of the cluster's authority, as [`Self::seal_envs`] seals.
    pub(crate) fn seal_authority(&self, record: &[u8]) -> Vec<u8> {
        seal(&self.authority, AUTHORITY, record)
    }

    pub(crate) fn open_authority(&self, sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        open(&self.authority, AUTHORITY, sealed)
    }

    /// By which servers know whether they have one root secret; it is no secret itself.
    pub(crate) fn check(&self) -> String {
        hex::encode(self.check)
    }

    /// The administrator's token of a cluster, whose servers share nothing but the root secret and
    /// the store.
    pub fn admin_token(&self) -> String {
        hex::encode(self.admin)
    }

    /// The random part of a credential of a cluster's first team, `purpose` apart: 20 bytes.
    pub fn first_credential(&self, purpose: &str) -> [u8; 20] {
        let tag = tag(&self.first, &[purpose.as_bytes()]);
        let mut first = [0; 20];
        first.copy_from_slice(&tag[..20]);
        first
    }

    /// Binds a cursor to the team that it was issued to.
    pub(crate) fn cursor_tag(&self, team: &TeamId, cursor: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 3] = [team.as_str().as_bytes(), b"/", cursor];
        tag(&self.cursor, &parts)[..CURSOR_TAG_BYTES].to_vec()
    }

    /// Makes what the link of an upload says unforgeable.
    pub(crate) fn upload_tag(&self, text: &[u8]) -> [u8; 32] {
        tag(&self.upload, &[text])
    }

    pub(crate) fn upload_fits(&self, text: &[u8], given: &[u8]) -> bool {
        self.upload_tag(text).ct_eq(given).into()
    }

    pub(crate) fn cursor_fits(&self, team: &TeamId, cursor: &[u8], given: &[u8]) -> bool {
        self.cursor_tag(team, cursor).ct_eq(given).into()
    }
}

/// What a sealed record of the authority is bound to.
const AUTHORITY: &[u8] = b"cluster authority";

/// XChaCha20-Poly1305, bound to `to`; nonce first.
fn seal(key: &[u8; 32], to: &[u8], text: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; NONCE_BYTES];
    getrandom::fill(&mut sealed).expect("the kernel's random source answers once booted");
    let nonce = XNonce::try_from(&sealed[..]).expect("it has a nonce's length");
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    let text = cipher.encrypt(&nonce, Payload { msg: text, aad: to });
    sealed.extend(text.expect("what is sealed is far below what this cipher takes"));
    sealed
}

fn open(key: &[u8; 32], to: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
    let (nonce, text) = sealed.split_at_checked(NONCE_BYTES).ok_or(Unopened)?;
    let nonce = XNonce::try_from(nonce).map_err(|_| Unopened)?;
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    let payload = Payload { msg: text, aad: to };
    cipher.decrypt(&nonce, payload).map_err(|_| Unopened)
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
    fn of_private_sandboxes_edges_are_told_the_hash_of_their_token() {
        let id = SandboxId::random();
        let ingress = |public| Ingress {
            allow_public_traffic: public,
            ..Ingress::default()
        };
        for public in [None, Some(true)] {
            let entrance = keys(1).entrance(&id, &ingress(public));
            assert_eq!(entrance.traffic_token, None);
        }
        let private = keys(1).entrance(&id, &ingress(Some(false)));
        let hash = Sha256::digest(keys(1).traffic_token(&id)).into();
        assert_eq!(private.traffic_token, Some(TokenHash(hash)));
        assert!(private.ingress.is_private());
    }

    #[test]
    fn variables_open_for_their_sandbox_alone() {
        let (id, other) = (SandboxId::random(), SandboxId::random());
        let envs = BTreeMap::from([("KEY".to_owned(), "a secret".to_owned())]);
        let sealed = keys(1).seal_envs(&id, &envs).unwrap();
        assert!(!sealed.windows(8).any(|bytes| bytes == b"a secret"));
        assert_ne!(keys(1).seal_envs(&id, &envs).unwrap(), sealed);
        assert_eq!(keys(1).open_envs(&id, Some(&sealed)), Ok(envs));
        assert_eq!(keys(1).open_envs(&other, Some(&sealed)), Err(Unopened));
        assert_eq!(keys(2).open_envs(&id, Some(&sealed)), Err(Unopened));
        assert_eq!(keys(1).open_envs(&id, Some(&sealed[..9])), Err(Unopened));
        let mut changed = sealed;
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(keys(1).open_envs(&id, Some(&changed)), Err(Unopened));
        assert_eq!(keys(1).seal_envs(&id, &BTreeMap::new()), None);
        assert_eq!(keys(1).open_envs(&id, None), Ok(BTreeMap::new()));
    }

    #[test]
    fn an_authority_opens_with_its_root_alone_and_is_no_sandbox_s_variables() {
        let sealed = keys(1).seal_authority(b"record");
        assert_eq!(keys(1).open_authority(&sealed), Ok(b"record".to_vec()));
        assert_eq!(keys(2).open_authority(&sealed), Err(Unopened));
        let id = SandboxId::random();
        assert_eq!(keys(1).open_envs(&id, Some(&sealed)), Err(Unopened));
        assert_ne!(keys(1).check(), keys(2).check());
        assert_ne!(keys(1).admin_token(), keys(1).check());
        assert_ne!(
            keys(1).first_credential("api key"),
            keys(1).first_credential("access token")
        );
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
