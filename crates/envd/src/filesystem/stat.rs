//! `Stat`.

use std::io;

use envd_wire::filesystem::{EntryInfo, StatRequest, StatResponse};

use super::{entry, resolve};
use crate::connect::{Context, RpcError};
use crate::paths::os_text;
use crate::route::blocking;
use crate::users::Names;

pub async fn stat(context: Context, request: StatRequest) -> Result<StatResponse, RpcError> {
    let (_, path) = resolve(&context, &request.path)?;
    let entry = blocking(move || look(&path)).await??;
    Ok(StatResponse {
        entry: entry.into(),
    })
}

/// The entry, or the error of a call that tells it.
pub fn look(path: &str) -> Result<EntryInfo, RpcError> {
    entry::look(path, &Names::read()).map_err(|error| {
        let text = os_text(&error);
        match error.kind() {
            io::ErrorKind::NotFound => {
                RpcError::not_found(format!("file not found: lstat {path}: {text}"))
            }
            _ => RpcError::internal(format!("error getting file info: lstat {path}: {text}")),
        }
    })
}
