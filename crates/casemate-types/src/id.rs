//! Identifiers. Each is its own type with one `parse`; formats are E2B's (`api.md` 1.4).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {kind}: expected {expected}")]
pub struct IdError {
    kind: &'static str,
    expected: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Parses the text form; the only way in.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError { kind: $kind, expected: $expected })
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// A sandbox: 1 to 64 characters of `[a-z0-9]`; those that we make are `i` and 20 more.
    SandboxId, "sandbox id", "1 to 64 characters of a-z and 0-9", |t| lower_alnum(t, 1, 64)
);
text_id!(
    /// A template: 1 to 64 characters of `[a-z0-9]`; those that we make have 20.
    TemplateId, "template id", "1 to 64 characters of a-z and 0-9", |t| lower_alnum(t, 1, 64)
);
text_id!(
    /// Kept files of a sandbox: 1 to 64 characters of `[a-z0-9]`; those that we make are `s`, `p`
    /// for those of a pause or `b` for those of a build, and 20 more.
    SnapshotId, "snapshot id", "1 to 64 characters of a-z and 0-9", |t| lower_alnum(t, 1, 64)
);
text_id!(
    /// A read-only layer that was made of kept files: `t-` and 1 to 32 characters.
    LayerId, "layer id", "t- and 1 to 32 characters of a-z and 0-9", layer_form
);
text_id!(
    /// One installation on a host (decision 1): 8 characters that every host-global name carries.
    InstanceId, "instance id", "8 characters of a-z and 0-9", |t| lower_alnum(t, 8, 8)
);
text_id!(
    /// A team: a UUID in its lower-case hyphenated form.
    TeamId, "team id", "a UUID", uuid_form
);
text_id!(
    /// A user: a UUID in its lower-case hyphenated form.
    UserId, "user id", "a UUID", uuid_form
);

impl SandboxId {
    /// A new random id: `i` and 20 characters (about 103 bits).
    pub fn random() -> Self {
        Self(format!("i{}", random_text(20)).into())
    }

    /// Parses an id as it may stand in a path: the old composite `<sandboxID>-<clientID>` is
    /// accepted and cut at its one `-`.
    pub fn parse_path(text: &str) -> Result<Self, IdError> {
        let mut parts = text.split('-');
        let id = parts.next().unwrap_or_default();
        let (client, more) = (parts.next(), parts.next());
        if more.is_some() || client.is_some_and(str::is_empty) {
            return Self::parse("");
        }
        Self::parse(id)
    }
}

impl TemplateId {
    pub fn random() -> Self {
        Self(random_text(20).into())
    }
}

impl SnapshotId {
    pub fn random() -> Self {
        Self(format!("s{}", random_text(20)).into())
    }

    /// For what a pause keeps: a node removes those that no paused sandbox of its own names.
    pub fn random_of_pause() -> Self {
        Self(format!("p{}", random_text(20)).into())
    }

    /// For what a step of a template build wrote: the next step begins with it, seldom more.
    pub fn random_of_build() -> Self {
        Self(format!("b{}", random_text(20)).into())
    }

    pub fn is_of_build(&self) -> bool {
        self.0.starts_with('b')
    }

    pub fn is_of_pause(&self) -> bool {
        self.0.starts_with('p')
    }
}

impl LayerId {
    /// A new random id: `t-` and 20 characters.
    pub fn random() -> Self {
        Self(format!("t-{}", random_text(20)).into())
    }
}

impl InstanceId {
    pub fn random() -> Self {
        Self(random_text(8).into())
    }
}

fn lower_alnum(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn layer_form(text: &str) -> bool {
    text.strip_prefix("t-")
        .is_some_and(|rest| lower_alnum(rest, 1, 32))
}

fn uuid_form(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
}

/// `len` characters of `[a-z0-9]` from the system's randomness, without modulo bias.
fn random_text(len: usize) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut out = String::with_capacity(len);
    let mut bytes = [0u8; 64];
    while out.len() < len {
        getrandom::fill(&mut bytes).expect("the kernel's random source answers once booted");
        let fair = bytes
            .iter()
            .filter(|b| **b < 252)
            .map(|b| ALPHABET[usize::from(*b % 36)]);
        out.extend(fair.map(char::from).take(len - out.len()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ids_have_the_form_of_e2b() {
        let id = SandboxId::random();
        assert_eq!(id.as_str().len(), 21);
        assert!(id.as_str().starts_with('i'));
        assert_eq!(SandboxId::parse(id.as_str()), Ok(id));
        assert_eq!(TemplateId::random().as_str().len(), 20);
    }

    #[test]
    fn composite_path_form_drops_the_client_id() {
        let cut = |text: &str| SandboxId::parse_path(text).map(|id| id.to_string()).ok();
        assert_eq!(cut("iabc-6532622b"), Some("iabc".into()));
        assert_eq!(cut("iabc"), Some("iabc".into()));
        assert_eq!(cut("iabc-"), None);
        assert_eq!(cut("iabc-1-2"), None);
        assert_eq!(cut("iAbc"), None);
        assert_eq!(cut(""), None);
        assert_eq!(cut("../etc"), None);
    }

    #[test]
    fn teams_are_uuids() {
        assert!(TeamId::parse("0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162").is_ok());
        assert!(TeamId::parse("0B7A2B0E-6F5C-4B43-9C0C-1D2E3F405162").is_err());
        assert!(TeamId::parse("0b7a2b0e6f5c4b439c0c1d2e3f405162").is_err());
    }
}
