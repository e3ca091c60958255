//! The filesystem service: looking, listing, making, moving, removing, watching.
//!
//! It works with the agent's own rights; the named account decides where relative paths begin and
//! who owns what is made.

pub mod entry;
mod events;
pub mod list_dir;
pub mod make_dir;
pub mod metadata;
mod network;
mod permissions;
pub mod remove;
pub mod rename;
pub mod stat;
mod tree;
pub mod watch_dir;
pub mod watchers;

use crate::connect::{Context, RpcError};
use crate::paths::expand;
use crate::users::User;

/// The account and the path of a call.
fn resolve(context: &Context, path: &str) -> Result<(User, String), RpcError> {
    let user = context.user()?;
    let path = resolve_for(context, &user, path)?;
    Ok((user, path))
}

fn resolve_for(context: &Context, user: &User, path: &str) -> Result<String, RpcError> {
    let settings = context.guest.settings.borrow();
    expand(path, user, settings.default_workdir.as_deref())
        .map_err(|error| RpcError::invalid(error.to_string()))
}
