//! What can go wrong behind the port. Causes stay in the chain; texts carry no secrets.

use casemate_types::{Portable, SandboxId, SnapshotId};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why no sandbox was made; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("sandbox {0} exists already")]
    Exists(SandboxId),
    /// No slot or no room in the pool: another node may have it.
    #[error("no room for sandbox {sandbox}: {what}")]
    Capacity {
        sandbox: SandboxId,
        what: &'static str,
    },
    /// The specification cannot be honoured by this kind (too many layers, a missing one, a
    /// snapshot that is not there).
    #[error("cannot make sandbox {sandbox} as specified: {why}")]
    Unsupported { sandbox: SandboxId, why: String },
    /// Its first process did not report in time, or ended; `output` is what it said, bounded.
    #[error("the agent of sandbox {sandbox} did not start: {output}")]
    Agent { sandbox: SandboxId, output: String },
    #[error("cannot {step} of sandbox {sandbox}")]
    Step {
        sandbox: SandboxId,
        step: &'static str,
        #[source]
        source: Cause,
    },
}

/// Why a sandbox of an earlier process was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It does not run any more (or another process has its id).
    #[error("sandbox {sandbox} does not run any more")]
    Gone {
        sandbox: SandboxId,
        /// [`Seen::memory_kills`](crate::Seen) as it was at its end, where that can still be read.
        memory_kills: Option<u64>,
    },
    #[error("cannot read the record of sandbox {sandbox}")]
    Record {
        sandbox: SandboxId,
        #[source]
        source: Cause,
    },
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("sandbox {0} does not run here")]
    NotFound(SandboxId),
    #[error("port {port} of sandbox {sandbox} is not open")]
    PortClosed { sandbox: SandboxId, port: u16 },
    #[error("cannot connect to port {port} of sandbox {sandbox}")]
    Io {
        sandbox: SandboxId,
        port: u16,
        #[source]
        source: std::io::Error,
    },
}

/// Any other operation of a runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("sandbox {0} does not run here")]
    NotFound(SandboxId),
    #[error("cannot {step}")]
    Step {
        step: &'static str,
        #[source]
        source: Cause,
    },
}

/// Why files did not leave this machine, or did not come to it.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    #[error("there is no {0} here")]
    NotHere(Portable),
    #[error("no room for {0}")]
    Capacity(Portable),
    /// The other end of the stream left, kept silent for too long, or sent what is no tree of ours.
    #[error("the stream of {what} is broken")]
    Stream {
        what: Portable,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot {step}")]
    Step {
        step: &'static str,
        #[source]
        source: Cause,
    },
}

/// Why files were not kept, or not found.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("sandbox {0} does not run here")]
    NotFound(SandboxId),
    #[error("snapshot {0} exists already")]
    Exists(SnapshotId),
    #[error("there is no snapshot {0}")]
    NoSnapshot(SnapshotId),
    /// The disk of snapshots, or of layers, is full.
    #[error("no room for snapshot {0}")]
    Capacity(SnapshotId),
    #[error("cannot {step}")]
    Step {
        step: &'static str,
        #[source]
        source: Cause,
    },
}
