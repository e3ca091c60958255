//! `/build/…`: putting the layers of an image and the files of COPY steps into a sandbox in which a
//! template is built, and taking all files out of one. Ours, not E2B's: only the platform's builder calls them, and with the same
//! token with which it could write each file by itself.
//!
//! ```text
//!   event loop ──pieces of the body──► one thread: gunzip, tar, files ──outcome──► answer
//! ```
//! One request works at a time; a thread of its own does, since it takes minutes. When the caller
//! hangs up, the thread stops at the next piece or entry and clears away what COPY unpacked.

pub mod copy;
mod error;
pub mod export;
mod input;
pub mod layer;
mod place;
pub mod receive;
mod remove;
mod root;

use serde::Serialize;

/// What was done, as the caller is told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Done {
    pub entries: u64,
    /// Of contents, without holes.
    pub bytes: u64,
    /// Entries left out: devices, and what would lie on another mount.
    pub skipped: u64,
}

/// A name out of an archive as people read it.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
