//! What can go wrong: on the way, and in the sandbox's agent.

mod envd;
mod http;

pub use envd::{EnvdError, RpcCode};
pub use http::HttpError;
