//! Tokens with which a machine joins: who it may become is in the store, and by which authority it
//! knows the cluster is in the token, so that it gives its secret to nobody else.
//!
//! `casemate-join.ID.SECRET.FINGERPRINT`, each in hexadecimal: 8, 32 and 32 bytes.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

const PREFIX: &str = "casemate-join";

/// See the module. It is a secret: print it only for whoever asked for it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: [u8; 8],
    secret: [u8; 32],
    fingerprint: [u8; 32],
}

/// Why a text is no token. It does not say the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: it has the form casemate-join.ID.SECRET.FINGERPRINT")]
pub struct TokenError;

impl JoinToken {
    /// A new one, for a cluster whose authority has this fingerprint.
    pub fn make(fingerprint: [u8; 32]) -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self {
            id,
            secret,
            fingerprint,
        })
    }

    /// Under which the store has it.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    /// What is said to the cluster.
    pub fn secret(&self) -> String {
        hex::encode(self.secret)
    }

    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// What the store keeps of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        hash(&self.secret())
    }
}

/// Of a secret as a machine says it: what the store compares.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = hex::encode(self.fingerprint);
        write!(f, "{PREFIX}.{}.{}.{fingerprint}", self.id(), self.secret())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().split('.');
        if parts.next() != Some(PREFIX) {
            return Err(TokenError);
        }
        let mut token = Self {
            id: [0; 8],
            secret: [0; 32],
            fingerprint: [0; 32],
        };
        let into: [&mut [u8]; 3] = [&mut token.id, &mut token.secret, &mut token.fingerprint];
        for bytes in into {
            let part = parts.next().ok_or(TokenError)?;
            hex::decode_to_slice(part, bytes).map_err(|_| TokenError)?;
        }
        match parts.next() {
            None => Ok(token),
            Some(_) => Err(TokenError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_printed_and_shows_its_secret_nowhere_else() {
        let token = JoinToken::make([7; 32]).unwrap();
        let text = format!(" {token}\n");
        assert_eq!(text.parse::<JoinToken>(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret()));
        assert_eq!(hash(&token.secret()), token.secret_hash());
        let other = JoinToken::make([7; 32]).unwrap();
        assert_ne!(other.secret_hash(), token.secret_hash());
        let text = token.to_string();
        for bad in [
            "",
            "casemate-join",
            "other.00.00.00",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &format!("{text}.00"),
            &text.replace("casemate", "kasemate"),
        ] {
            let refused = bad.parse::<JoinToken>().unwrap_err();
            assert!(!refused.to_string().contains(&token.secret()), "{bad}");
        }
    }
}
