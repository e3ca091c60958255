//! What keeps a figure from being measured.

use std::io;
use std::path::PathBuf;

use casemate_client::{ApiError, EnvdError, HttpError};

/// The cause below, of whichever part.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A bench that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("the platform refused to {action}")]
    Api {
        action: &'static str,
        #[source]
        source: ApiError,
    },
    #[error("a sandbox refused to {action}")]
    Envd {
        action: &'static str,
        #[source]
        source: EnvdError,
    },
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the store failed")]
    Store(#[source] Cause),
    #[error("the simulation did not end")]
    Simulation,
    #[error("/bin/true ended with {status}")]
    Command { status: String },
    #[error("a script in a sandbox ended with {status}")]
    Script { status: String },
    #[error("a script in a sandbox wrote {said:?}")]
    Said { said: String },
    #[error("a build failed: {why}")]
    Build { why: String },
    #[error("a build ran {run} steps and took {cached} from the cache, not {expected} of {steps}")]
    Steps {
        run: usize,
        cached: usize,
        /// To be run.
        expected: usize,
        steps: usize,
    },
    #[error("only {made} of {count} forks were made: {why}")]
    Forks {
        made: usize,
        count: usize,
        why: String,
    },
    #[error("the floor cannot be measured: cannot {action}")]
    Floor {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the floor cannot be measured: {reason}")]
    FloorRefused { reason: String },
    #[error("cannot {action}")]
    Io {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the stock SDK's runner failed: {output}")]
    Sdk { output: String },
    #[error("cannot write the report {path}", path = path.display())]
    Report {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}
