//! `MakeDir`: with all parents; a directory that exists is an error here.

use std::fs;
use std::io;
use std::path::Path;

use envd_wire::filesystem::{EntryInfo, MakeDirRequest, MakeDirResponse};

use super::{resolve, stat};
use crate::connect::{Code, Context, RpcError};
use crate::paths::{ensure_dirs, os_text};
use crate::route::blocking;
use crate::users::User;

pub async fn make_dir(
    context: Context,
    request: MakeDirRequest,
) -> Result<MakeDirResponse, RpcError> {
    let (user, path) = resolve(&context, &request.path)?;
    let entry = blocking(move || make(&path, &user)).await??;
    Ok(MakeDirResponse {
        entry: entry.into(),
    })
}

fn make(path: &str, user: &User) -> Result<EntryInfo, RpcError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let text = format!("directory already exists: {path}");
            return Err(RpcError::new(Code::AlreadyExists, text));
        }
        Ok(_) => {
            let text = format!("path already exists but it is not a directory: {path}");
            return Err(RpcError::invalid(text));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let text = format!("error getting file info: stat {path}: {}", os_text(&error));
            return Err(RpcError::internal(text));
        }
    }
    ensure_dirs(Path::new(path), user).map_err(|error| RpcError::internal(error.to_string()))?;
    stat::look(path)
}
