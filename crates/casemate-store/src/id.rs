//! Ids of rows that are UUIDs on the wire (`api.md` 1.4).

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// A text that is no UUID in its hyphenated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid {kind} id: expected a UUID")]
pub struct RowIdError {
    kind: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// Parses the hyphenated form, in either case.
            pub fn parse(text: &str) -> Result<Self, RowIdError> {
                Hyphenated::from_str(text)
                    .map(|id| Self(id.into_uuid()))
                    .map_err(|_| RowIdError { kind: $kind })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = RowIdError;

            fn from_str(text: &str) -> Result<Self, RowIdError> {
                Self::parse(text)
            }
        }
    };
}

uuid_id!(
    /// An API key or an access token; not the secret.
    KeyId, "key"
);
uuid_id!(
    /// One build of a template.
    BuildId, "build"
);
