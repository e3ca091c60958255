//! Makes what sandboxes start from: the base template's root file system, and the small layer of
//! operator settings that lies above every template. Builds of users' templates will join here.
//!
//! Everything in it is blocking, runs at start-up or by hand, and never on the create path.
//! It must not know the public API, stores, runtimes or teams.

pub mod archive;
pub mod base;
pub mod builder;
pub mod draft;
pub mod host;
pub mod progress;
pub mod recipe;
pub mod site;

pub use progress::{Progress, Silent};
