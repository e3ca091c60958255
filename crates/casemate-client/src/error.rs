//! What can go wrong: on the way, in the REST API, in the sandbox's agent.

mod api;
mod envd;
mod http;

pub use api::ApiError;
pub use envd::{EnvdError, RpcCode};
pub use http::HttpError;
