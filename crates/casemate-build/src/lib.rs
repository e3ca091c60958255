//! Makes what sandboxes start from: the base template's root file system, the small layer of
//! operator settings that lies over every template's lowest one, and what users' recipes say.
//!
//! Two halves that share a purpose. [`base`], [`site`], [`scratch`] and what they need are blocking, run as root
//! at start-up or by hand. [`builder`] runs in the control process, without privileges, and does
//! everything through the node port, in sandboxes. Neither must know the public API or an isolation
//! kind.

pub mod agent;
pub mod archive;
pub mod base;
pub mod builder;
pub mod draft;
pub mod host;
pub mod progress;
pub mod recipe;
pub mod scratch;
pub mod site;

pub use progress::{Progress, Silent};
