//! API keys and access tokens: their text form (`api.md` 2.2).

use casemate_store::{KeyHash, KeyMask};

/// Prefix of a team's key.
pub const API_KEY_PREFIX: &str = "e2b_";
/// Prefix of a user's token.
pub const ACCESS_TOKEN_PREFIX: &str = "sk_e2b_";

const RANDOM_BYTES: usize = 20;
/// Digits of a key at most; the longest that anybody issues has 64.
const DIGITS_MAX: usize = 256;

/// A text that is no key of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    #[error("the prefix is not {0}")]
    Prefix(&'static str),
    #[error("what follows the prefix is not hexadecimal")]
    Digits,
}

/// A key in clear. It has no `Debug` on purpose.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    prefix: &'static str,
    digits: String,
    hash: KeyHash,
}

impl Credential {
    /// A new key of 20 random bytes.
    pub fn random(prefix: &'static str) -> Self {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes).expect("the kernel's random source answers once booted");
        Self {
            prefix,
            digits: hex::encode(bytes),
            hash: KeyHash::of(&bytes),
        }
    }

    pub fn parse(prefix: &'static str, text: &str) -> Result<Self, CredentialError> {
        let digits = text
            .strip_prefix(prefix)
            .ok_or(CredentialError::Prefix(prefix))?;
        if digits.is_empty() || digits.len() > DIGITS_MAX {
            return Err(CredentialError::Digits);
        }
        let bytes = hex::decode(digits).map_err(|_| CredentialError::Digits)?;
        Ok(Self {
            prefix,
            digits: digits.into(),
            hash: KeyHash::of(&bytes),
        })
    }

    /// As its owner writes it.
    pub fn reveal(&self) -> String {
        format!("{}{}", self.prefix, self.digits)
    }

    pub fn hash(&self) -> &KeyHash {
        &self.hash
    }

    pub fn mask(&self) -> KeyMask {
        KeyMask::of(self.prefix, &self.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_keys_have_the_form_of_e2b() {
        let key = Credential::random(API_KEY_PREFIX);
        let text = key.reveal();
        assert_eq!(text.len(), 44);
        let parsed = Credential::parse(API_KEY_PREFIX, &text).unwrap();
        assert_eq!(parsed.hash(), key.hash());
        assert_eq!(key.mask().value_len, 40);
        assert_eq!(key.mask().masked_prefix, text[4..6]);
        assert_eq!(key.mask().masked_suffix, text[40..]);
    }

    #[test]
    fn wrong_forms_are_told_apart() {
        let parse = |text: &str| Credential::parse(API_KEY_PREFIX, text).err();
        assert_eq!(parse("sk_e2b_00"), Some(CredentialError::Prefix("e2b_")));
        assert_eq!(parse(""), Some(CredentialError::Prefix("e2b_")));
        for wrong in ["e2b_", "e2b_0", "e2b_zz", "e2b_00 ", "e2b_é0"] {
            assert_eq!(parse(wrong), Some(CredentialError::Digits), "{wrong}");
        }
        assert_eq!(
            parse(&format!("e2b_{}", "0".repeat(258))),
            Some(CredentialError::Digits)
        );
        assert_eq!(parse("e2b_53ae1fed82754c17ad8077fbc8bcdd90"), None);
    }

    #[test]
    fn the_hash_is_over_the_decoded_bytes() {
        let lower = Credential::parse(API_KEY_PREFIX, "e2b_ab").unwrap();
        assert_eq!(lower.hash(), &KeyHash::of(&[0xab]));
    }
}
