//! What can leave a node and come to another one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{LayerId, SnapshotId};

/// Files that a node keeps beyond a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Portable {
    /// As they were kept.
    Snapshot(SnapshotId),
    /// Sealed, so that they lie below sandboxes.
    Layer(LayerId),
}

impl fmt::Display for Portable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(id) => write!(f, "snapshot {id}"),
            Self::Layer(id) => write!(f, "layer {id}"),
        }
    }
}
