//! Signed links to files: a hash over path, operation, user, token and expiry.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};

use crate::settings::{Settings, same_bytes};

/// What a link allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What a request to `/files` shows for its right.
#[derive(Debug, Default)]
pub struct Shown<'a> {
    pub token: Option<&'a [u8]>,
    /// As sent, decoded, not resolved.
    pub path: &'a str,
    pub username: &'a str,
    pub signature: Option<&'a str>,
    pub expiration: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("access token present in header but does not match")]
    Token,
    #[error("missing signature query parameter")]
    NoSignature,
    #[error("invalid signature")]
    Signature,
    #[error("signature is already expired")]
    Expired,
}

/// Whether `shown` gives the right to `operation`. `now` is in Unix seconds.
pub fn check(
    settings: &Settings,
    operation: Operation,
    shown: &Shown<'_>,
    now: i64,
) -> Result<(), Denied> {
    let Some(token) = settings.access_token.as_deref() else {
        return Ok(());
    };
    if let Some(given) = shown.token {
        return if settings.token_is(given) {
            Ok(())
        } else {
            Err(Denied::Token)
        };
    }
    let given = shown.signature.ok_or(Denied::NoSignature)?;
    let right = sign(
        shown.path,
        operation,
        shown.username,
        token,
        shown.expiration,
    );
    if !same_bytes(right.as_bytes(), given.as_bytes()) {
        return Err(Denied::Signature);
    }
    if shown.expiration.is_some_and(|expiration| expiration < now) {
        return Err(Denied::Expired);
    }
    Ok(())
}

fn sign(
    path: &str,
    operation: Operation,
    username: &str,
    token: &str,
    expiration: Option<i64>,
) -> String {
    let mut raw = format!("{path}:{}:{username}:{token}", operation.name());
    if let Some(expiration) = expiration {
        raw.push_str(&format!(":{expiration}"));
    }
    format!("v1_{}", STANDARD_NO_PAD.encode(Sha256::digest(raw)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: &str = "v1_/b7eDSaffLp1TGnUGY+gn1r74nX5lZwsG1yoguxDKwQ";
    const NOW: i64 = 1_000;

    #[track_caller]
    fn verdict(operation: Operation, shown: &Shown<'_>, expected: Result<(), Denied>) {
        let mut settings = Settings::new(None, true);
        settings.access_token = Some("tok".to_owned());
        assert_eq!(check(&settings, operation, shown, NOW), expected);
    }

    #[test]
    fn the_known_vector() {
        assert_eq!(sign("a b.txt", Operation::Read, "", "tok", None), VECTOR);
    }

    #[test]
    fn order_of_checks() {
        let path = "a b.txt";
        let signed = Shown {
            path,
            signature: Some(VECTOR),
            ..Shown::default()
        };
        verdict(Operation::Read, &signed, Ok(()));
        verdict(Operation::Write, &signed, Err(Denied::Signature));
        let late = Shown {
            expiration: Some(NOW + 5),
            path,
            signature: Some(VECTOR),
            ..Shown::default()
        };
        verdict(Operation::Read, &late, Err(Denied::Signature));
        verdict(
            Operation::Read,
            &Shown {
                path,
                ..Shown::default()
            },
            Err(Denied::NoSignature),
        );
        let token = Shown {
            token: Some(b"tok"),
            ..Shown::default()
        };
        verdict(Operation::Write, &token, Ok(()));
        let wrong = Shown {
            token: Some(b"no"),
            path,
            signature: Some(VECTOR),
            ..Shown::default()
        };
        verdict(Operation::Read, &wrong, Err(Denied::Token));
    }

    #[test]
    fn expiry() {
        for (expiration, expected) in [
            (NOW - 1, Err(Denied::Expired)),
            (NOW, Ok(())),
            (NOW + 1, Ok(())),
        ] {
            let signature = sign("p", Operation::Write, "user", "tok", Some(expiration));
            let shown = Shown {
                path: "p",
                username: "user",
                signature: Some(&signature),
                expiration: Some(expiration),
                token: None,
            };
            verdict(Operation::Write, &shown, expected);
        }
    }

    #[test]
    fn without_a_token_nothing_is_checked() {
        let settings = Settings::new(None, true);
        let shown = Shown {
            token: Some(b"x"),
            ..Shown::default()
        };
        assert_eq!(check(&settings, Operation::Read, &shown, NOW), Ok(()));
    }
}
