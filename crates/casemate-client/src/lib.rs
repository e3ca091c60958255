//! Our client of what Casemate serves to everyone: the public REST API, and beside it the agent
//! inside a sandbox, whose client (`envd-client`) is handed on here. The command line, the bench and
//! our own tests use it.
//!
//! Owns what is asked of the REST API and how its answers are judged. Must not know any server
//! crate: what it can do, the stock SDKs can do too.

pub mod api;
mod error;

pub use api::{Admin, Api};
pub use envd_client as envd;
pub use envd_client::{BaseUrl, Envd, EnvdError, HttpError, RpcCode, Transport, UploadProgress};
pub use error::ApiError;
