//! What a runtime must remember to find a sandbox again; the node journals it.

use casemate_types::SandboxId;
use serde::{Deserialize, Serialize};

use crate::IsolationKind;

/// The runtime's own facts are opaque to everyone else and carry their own version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuntimeRecord {
    pub sandbox: SandboxId,
    pub kind: IsolationKind,
    /// Of `facts`, set and read by the kind.
    pub version: u32,
    pub facts: serde_json::Value,
}
