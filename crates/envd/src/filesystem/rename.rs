//! `Move`.

use std::fs;
use std::io;
use std::path::Path;

use envd_wire::filesystem::{EntryInfo, MoveRequest, MoveResponse};

use super::{resolve, resolve_for, stat};
use crate::connect::{Context, RpcError};
use crate::paths::{ensure_dirs, os_text};
use crate::route::blocking;
use crate::users::User;

pub async fn rename(context: Context, request: MoveRequest) -> Result<MoveResponse, RpcError> {
    let (user, source) = resolve(&context, &request.source)?;
    let destination = resolve_for(&context, &user, &request.destination)?;
    let entry = blocking(move || rename_now(&source, &destination, &user)).await??;
    Ok(MoveResponse {
        entry: entry.into(),
    })
}

fn rename_now(source: &str, destination: &str, user: &User) -> Result<EntryInfo, RpcError> {
    if let Some(parent) = Path::new(destination).parent() {
        ensure_dirs(parent, user).map_err(|error| RpcError::internal(error.to_string()))?;
    }
    fs::rename(source, destination).map_err(|error| {
        let text = format!("rename {source} {destination}: {}", os_text(&error));
        match error.kind() {
            io::ErrorKind::NotFound => {
                RpcError::not_found(format!("source file not found: {text}"))
            }
            _ => RpcError::internal(format!("error renaming: {text}")),
        }
    })?;
    stat::look(destination)
}
