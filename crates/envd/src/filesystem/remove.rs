//! `Remove`: a whole tree; what is not there is removed already.

use std::fs;
use std::io;

use envd_wire::filesystem::{RemoveRequest, RemoveResponse};

use super::resolve;
use crate::connect::{Context, RpcError};
use crate::paths::os_text;
use crate::route::blocking;

pub async fn remove(context: Context, request: RemoveRequest) -> Result<RemoveResponse, RpcError> {
    let (_, path) = resolve(&context, &request.path)?;
    blocking(move || remove_now(&path)).await??;
    Ok(RemoveResponse::default())
}

fn remove_now(path: &str) -> Result<(), RpcError> {
    let removed = fs::symlink_metadata(path).and_then(|found| {
        if found.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
    });
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RpcError::internal(format!(
            "error removing file or directory: remove {path}: {}",
            os_text(&error)
        ))),
        _ => Ok(()),
    }
}
