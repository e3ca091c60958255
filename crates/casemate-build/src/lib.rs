//! Makes what sandboxes start from: the base template's root file system, the small layers of operator
//! settings that lie above an image or a base, and the one below images that are unpacked.
//!
//! Everything in it is blocking, runs at start-up or by hand, and never on the create path.
//! It must not know the public API, stores, runtimes or teams.

pub mod archive;
pub mod base;
pub mod draft;
pub mod host;
pub mod progress;
pub mod recipe;
pub mod scratch;
pub mod site;

pub use progress::{Progress, Silent};
