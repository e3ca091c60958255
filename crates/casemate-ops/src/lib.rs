//! Tools around a running installation: the bench, and chaos. Nothing of the production path.
//!
//! Speaks to the platform through the public client, as any user does, and measures beside it what
//! the bare kernel can do. Must not know stores, drivers or any server crate.

pub mod bench;
pub mod chaos;
