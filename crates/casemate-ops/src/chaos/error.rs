//! Why a run did not come to its end. What the platform did wrong is no error: it is in the report.

use std::io;
use std::path::PathBuf;

use casemate_client::{ApiError, HttpError};

#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    #[error("{path} exists: name a directory that `chaos` may make and remove", path = .0.display())]
    DataDirExists(PathBuf),
    #[error("cannot {action}")]
    Io {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the platform ended instead of becoming ready; its log is {log}", log = .0.display())]
    NotReady(PathBuf),
    #[error("the platform was not ready after {seconds} s; its log is {log}", log = .log.display())]
    Slow { seconds: u64, log: PathBuf },
    #[error("`casemate down --purge` failed: {0}")]
    Purge(String),
    #[error("the data directory has no credentials")]
    Credentials,
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("look at what is left")]
    LastLook(#[source] ApiError),
    #[error("a part of the load broke down")]
    Load(#[source] tokio::task::JoinError),
}

impl ChaosError {
    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
