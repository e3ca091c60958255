//! Files that a `COPY` names, on the machine of whoever builds: which they are, what they hash to,
//! and the archive that goes to the server. By the rules of E2B's Python SDK 2.63.0, so that both
//! name the same files by the same hash and neither uploads what the other did.
//!
//! Owns the context folder: patterns, `.dockerignore`, hash and archive. Nothing outside the folder is
//! read: a path that leaves it is refused, links are kept as links. Must not know servers, nor where a
//! source was written. Blocking; callers that must not block give it a thread.

mod archive;
mod context;
mod error;
mod glob;
mod ignore;
mod select;
mod visit;

pub use archive::Archive;
pub use context::Context;
pub use error::ContextError;
pub use select::Selection;
