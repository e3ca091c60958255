//! Our client of what Casemate serves to everyone: the public REST API and the agent inside a
//! sandbox, reached through the edge. The command line, the bench and our own tests use it.
//!
//! Owns connections, addresses, errors and the order of bytes on the wire. Must not know any server
//! crate: what it can do, the stock SDKs can do too.

pub mod api;
pub mod envd;
mod error;
mod transport;

pub use api::{Admin, Api};
pub use envd::Envd;
pub use error::{ApiError, EnvdError, HttpError, RpcCode};
pub use transport::{BaseUrl, Transport};
