//! Our client of the agent inside a sandbox: reached through the edge like everybody's, or over
//! connections that somebody else makes.
//!
//! Owns connections, addresses, errors and the order of bytes on the wire. Must not know who asks,
//! nor any server crate: what it can do, the stock SDKs can do too. The client of the REST API
//! stands on it, because both share connections.

mod envd;
mod error;
mod transport;

pub use envd::{Codec, Envd, MessageStream, files, filesystem, process};
pub use error::{EnvdError, HttpError, RpcCode};
pub use transport::{
    ANSWER_TIMEOUT, Answer, BaseUrl, Dial, Download, Transport, UploadProgress, Wire,
};
