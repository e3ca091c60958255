//! What the in-sandbox agent and its callers say to each other: the messages of `process.Process`
//! and `filesystem.Filesystem`, in JSON (the codec of the SDKs) and in binary.
//!
//! Generated from `proto/` by `codegen/` and checked in, so that a build needs no protobuf compiler
//! and a review sees what changed. Owns the messages and their two encodings; knows nothing of
//! envelopes, HTTP or what a method does.

#[rustfmt::skip]
#[allow(clippy::all, reason = "generated code")]
#[path = "generated/filesystem.rs"]
pub mod filesystem;
#[rustfmt::skip]
#[allow(clippy::all, reason = "generated code")]
#[path = "generated/process.rs"]
pub mod process;

use buffa::Message;
pub use buffa::{EnumValue, Enumeration, MessageField};
pub use buffa_types::google::protobuf::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One message of the two services.
pub trait WireMessage: Message + Default + Serialize + DeserializeOwned + Send + 'static {}

impl<M: Message + Default + Serialize + DeserializeOwned + Send + 'static> WireMessage for M {}

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Json,
    Binary,
}

/// A message that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("not a JSON message of this type: {0}")]
    Json(#[source] serde_json::Error),
    #[error("not a JSON object")]
    NotAnObject,
    #[error("not a binary message of this type: {0}")]
    Binary(#[source] buffa::DecodeError),
    #[error("cannot encode message: {0}")]
    Encode(#[source] serde_json::Error),
}

impl Codec {
    /// Reads one message. An empty JSON body is the empty message, as it is in binary.
    pub fn decode<M: WireMessage>(self, bytes: &[u8]) -> Result<M, CodecError> {
        match self {
            Self::Json if bytes.is_empty() => Ok(M::default()),
            // serde would take an array for a message, too.
            Self::Json if bytes.trim_ascii_start().first() != Some(&b'{') => {
                Err(CodecError::NotAnObject)
            }
            Self::Json => serde_json::from_slice(bytes).map_err(CodecError::Json),
            Self::Binary => M::decode_from_slice(bytes).map_err(CodecError::Binary),
        }
    }

    /// Appends one message.
    pub fn encode<M: WireMessage>(self, message: &M, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match self {
            Self::Json => serde_json::to_writer(out, message).map_err(CodecError::Encode),
            Self::Binary => {
                message.encode(out);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
