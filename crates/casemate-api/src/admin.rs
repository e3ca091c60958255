//! What administrators do beside the teams' own operations.

pub(crate) mod builds;
pub(crate) mod cluster;
pub(crate) mod keys;
pub(crate) mod sandboxes;
