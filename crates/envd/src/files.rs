//! `/files`: contents of files over plain HTTP, both ways.

pub mod compose;
mod content_type;
mod decode;
mod disposition;
pub mod download;
mod encoding;
mod metadata;
mod multipart;
mod range;
mod send;
pub mod upload;
mod write;

use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt;
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use http::request::Parts;

use crate::answer::{Refusal, refuse, refuse_in_text};
use crate::auth::TOKEN_HEADER;
use crate::auth::signature::{self, Operation, Shown};
use crate::guest::Guest;
use crate::query::value;

/// What the query of a request says.
struct Asked {
    path: Option<String>,
    username: Option<String>,
}

/// Reads the query and checks the right to `operation`.
fn admit(guest: &Guest, request: &Parts, operation: Operation) -> Result<Asked, Refusal> {
    let query = request.uri.query();
    let (path, username) = (value(query, "path"), value(query, "username"));
    let expiration = match value(query, "signature_expiration").map(|text| text.parse()) {
        None => None,
        Some(Ok(seconds)) => Some(seconds),
        Some(Err(_)) => {
            let words = "Invalid format for parameter signature_expiration: not an integer";
            return Err(refuse_in_text(StatusCode::BAD_REQUEST, words));
        }
    };
    let signature = value(query, "signature");
    let shown = Shown {
        token: request
            .headers
            .get(TOKEN_HEADER)
            .map(|token| token.as_bytes()),
        path: path.as_deref().unwrap_or_default(),
        username: username.as_deref().unwrap_or_default(),
        signature: signature.as_deref(),
        expiration,
    };
    signature::check(&guest.settings.borrow(), operation, &shown, now())
        .map_err(|denied| refuse(StatusCode::UNAUTHORIZED, &denied.to_string()))?;
    Ok(Asked { path, username })
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The path on disk, or the answer of a request whose path cannot be one.
fn expand(guest: &Guest, user: &crate::users::User, path: &str) -> Result<String, Refusal> {
    let settings = guest.settings.borrow();
    crate::paths::expand(path, user, settings.default_workdir.as_deref()).map_err(|denied| {
        let text = format!("error expanding and resolving path '{path}': {denied}");
        refuse(StatusCode::BAD_REQUEST, &text)
    })
}

/// Pipes and sockets: what they carry comes when somebody sends it, so a request could wait for ever.
fn is_channel(found: &Metadata) -> bool {
    found.file_type().is_fifo() || found.file_type().is_socket()
}

/// File work that broke down, as no kind of file can make it.
fn crashed(rpc: &crate::connect::RpcError) -> Refusal {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, &rpc.message)
}
