//! Rows as the databases hold them, and how they become what the ports speak of. Shared by all
//! adapters: numbers are `i64`, the rest text, so that each dialect decodes them alike.

mod artifact;
mod build;
mod cluster;
mod keys;
mod sandbox;
mod team;
mod template;

use std::time::Duration;

use casemate_types::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::error::Cause;

pub(crate) use artifact::{ArtifactRow, portable, portable_name};
pub(crate) use build::{
    BuildRow, CachedLayerRow, RecordRow, context_text, envs_text, failure_text, layers, layers_of,
    layers_text, startup_text, status_word,
};
pub(crate) use cluster::{
    JoinTokenRow, NodeRow, join_role, join_role_word, labels_text, node_standing_word,
};
pub(crate) use keys::{ApiKeyRow, OwnedKeyRow, TokenRow};
pub(crate) use sandbox::{
    AliveRow, SandboxRow, ingress_text, kept_word, network_text, on_timeout_word, reason_word,
    state_word,
};
pub(crate) use team::{MembershipRow, TeamRow, standing_words};
pub(crate) use template::{MatchRow, SnapshotRow, SummaryRow, TemplateRow, source_word};

/// A value that is not what this version writes; the row's name is added by [`Named`].
pub(crate) type Misread = Cause;

/// Says which row could not be read.
pub(crate) trait Named<T> {
    fn named(self, what: &'static str, id: &str) -> Result<T, StoreError>;
}

impl<T> Named<T> for Result<T, Misread> {
    fn named(self, what: &'static str, id: &str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Corrupt {
            what,
            id: id.into(),
            source,
        })
    }
}

/// Microseconds since the epoch; what is finer is cut off.
pub(crate) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

pub(crate) fn timestamp(micros: i64) -> Result<Timestamp, Misread> {
    Ok(Timestamp::from_microsecond(micros)?)
}

/// Microseconds.
pub(crate) fn length(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// Numbers of ours fit; one that does not is cut to the largest.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn small(number: i64) -> Result<u32, Misread> {
    Ok(u32::try_from(number)?)
}

/// JSON of ours, version 1. A reader refuses every other version instead of guessing.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(rename = "is")]
    value: T,
}

const JSON_VERSION: u32 = 1;

fn to_json<T: Serialize>(value: T) -> String {
    let versioned = Versioned {
        v: JSON_VERSION,
        value,
    };
    serde_json::to_string(&versioned).expect("plain structs of strings always serialize")
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Misread> {
    /// Read first, so that another version's shape is not an error of syntax.
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let Version { v } = serde_json::from_str(text)?;
    if v != JSON_VERSION {
        return Err(format!("version {v} of a JSON value, expected {JSON_VERSION}").into());
    }
    let versioned: Versioned<T> = serde_json::from_str(text)?;
    Ok(versioned.value)
}

/// For a word that no `match` knows.
pub(crate) fn unknown_word(kind: &str, word: &str) -> Misread {
    format!("unknown {kind} {word:?}").into()
}
