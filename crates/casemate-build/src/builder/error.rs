//! Why a build fails.

use casemate_rpc::NodeError;
use casemate_store::StoreError;
use casemate_types::{BuildFailure, chain};
use envd_client::{EnvdError, HttpError};

use super::value::VALUE_BYTES_MAX;

/// What is told of a failure that is not the recipe's; the text is E2B's.
pub const INTERNAL: &str =
    "An internal error occurred. Please try again or contact support with the build ID.";

pub(super) const DISK_FULL: &str = "the disk of the platform is full: the build cannot go on";

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe's fault, or its image's: the message is for whoever wrote it.
    #[error("{message}")]
    Recipe { step: String, message: String },
    /// The platform cannot do it now, and says why.
    #[error("{0}")]
    Refused(String),
    #[error("a value has more than {VALUE_BYTES_MAX} bytes")]
    TooLong,
    #[error("build was cancelled")]
    Cancelled,
    #[error("build timed out")]
    TimedOut,
    #[error("the store failed in a build")]
    Store(#[from] StoreError),
    #[error("the node failed in a build")]
    Node(#[source] NodeError),
    #[error("the agent of a build's sandbox failed")]
    Agent(#[from] EnvdError),
    #[error("the platform failed in a build: {0}")]
    Internal(String),
}

impl BuildError {
    pub(super) fn recipe(step: &str, message: impl Into<String>) -> Self {
        Self::Recipe {
            step: step.into(),
            message: message.into(),
        }
    }

    /// In words for whoever waits for the build.
    pub fn failure(&self) -> BuildFailure {
        let (message, step) = match self {
            Self::Recipe { step, message } => (message.clone(), Some(step.clone())),
            Self::Refused(_) | Self::Cancelled | Self::TimedOut => (self.to_string(), None),
            Self::Store(_) | Self::Node(_) | Self::Agent(_) | Self::TooLong | Self::Internal(_) => {
                (INTERNAL.into(), None)
            }
        };
        BuildFailure::new(message, step)
    }

    /// What an operator should look at, with its causes; `None` for what is the client's affair.
    pub fn for_operators(&self) -> Option<String> {
        match self {
            Self::Recipe { .. } | Self::Refused(_) | Self::Cancelled | Self::TimedOut => None,
            Self::Store(_) | Self::Node(_) | Self::Agent(_) | Self::TooLong | Self::Internal(_) => {
                Some(chain(self))
            }
        }
    }
}

impl From<HttpError> for BuildError {
    fn from(error: HttpError) -> Self {
        Self::Agent(error.into())
    }
}

impl From<NodeError> for BuildError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::DiskFull { .. } => Self::Refused(DISK_FULL.into()),
            NodeError::Full { .. } | NodeError::QueueFull { .. } => {
                Self::Refused("the platform has no room for a build now; try again later".into())
            }
            NodeError::Unreachable => Self::Refused(
                "the build was interrupted because its node was not reachable; start it again"
                    .into(),
            ),
            other => Self::Node(other),
        }
    }
}
