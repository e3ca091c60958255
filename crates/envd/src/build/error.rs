//! Why a layer or a COPY step failed, and the status that says so.

use std::io;

use http::StatusCode;
use rustix::io::Errno;

use super::shown;
use crate::answer::{Refusal, refuse};
use crate::limits::{BUILD_NAME_BYTES, BUILD_OWNER};
use crate::paths::os_text;
use crate::tar::TarError;

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{0}")]
    Archive(#[source] TarError),
    /// What the caller asked for makes no sense.
    #[error("{0}")]
    Asked(String),
    #[error("'{path}': {why}")]
    Entry { path: String, why: &'static str },
    #[error("'{path}': owner {owner} is above {BUILD_OWNER}")]
    Owner { path: String, owner: u64 },
    #[error("'{path}': hard link to '{target}', which is not there")]
    LinkTarget { path: String, target: String },
    #[error("'{path}': {}", os_text(.source))]
    Write { path: String, source: io::Error },
    #[error("'{path}' cannot be read: {}", os_text(.source))]
    Read { path: String, source: io::Error },
    /// Of what is packed: nobody takes it any more, or it is too much.
    #[error("send what was packed: {}", os_text(.0))]
    Send(#[source] io::Error),
    #[error("the folders of the archive have names of more than {BUILD_NAME_BYTES} bytes")]
    Names,
    #[error("the caller hung up")]
    Stopped,
    #[error("no thread can be had for it: {}", os_text(.0))]
    Thread(#[source] io::Error),
    #[error("it broke down")]
    Panicked,
}

impl BuildError {
    pub fn entry(path: &[u8], why: &'static str) -> Self {
        Self::Entry {
            path: shown(path),
            why,
        }
    }

    pub fn write(path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Write {
            path: shown(path),
            source: source.into(),
        }
    }

    pub fn read(path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Read {
            path: shown(path),
            source: source.into(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Write { source, .. } => match source.raw_os_error().map(Errno::from_raw_os_error)
            {
                Some(Errno::NOSPC | Errno::DQUOT) => StatusCode::INSUFFICIENT_STORAGE,
                Some(Errno::IO | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::ROFS) => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
                _ => StatusCode::BAD_REQUEST,
            },
            Self::Archive(TarError::Read(source)) => match source.kind() {
                io::ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
                io::ErrorKind::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            },
            Self::Archive(TarError::Entries) | Self::Names => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Archive(_)
            | Self::Asked(_)
            | Self::Entry { .. }
            | Self::Owner { .. }
            | Self::LinkTarget { .. }
            | Self::Stopped => StatusCode::BAD_REQUEST,
            Self::Thread(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Read { .. } | Self::Send(_) | Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<TarError> for BuildError {
    fn from(error: TarError) -> Self {
        Self::Archive(error)
    }
}

impl From<BuildError> for Refusal {
    fn from(error: BuildError) -> Self {
        refuse(error.status(), &error.to_string())
    }
}
