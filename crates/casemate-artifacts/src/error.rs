//! Why an artifact was not had, or not kept.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::Digest;
use crate::manifest::NotAManifest;
use crate::piece::Wrong;

/// What went wrong with an artifact. No text shows credentials, signed addresses or content.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArtifactError {
    /// It was removed, or never was there.
    #[error("{what} is not in the bucket")]
    NotFound { what: What },
    /// The bucket is there and refuses: credentials are wrong or have expired, rights are missing,
    /// there is no such bucket, or it does not know the request. Trying again does not help.
    #[error("the bucket refuses to {operation} {what}")]
    Denied {
        operation: Operation,
        what: What,
        #[source]
        cause: Cause,
    },
    /// Not reached, too slow, overloaded or failing, after all tries.
    #[error("the bucket could not {operation} {what}")]
    Unavailable {
        operation: Operation,
        what: What,
        #[source]
        cause: Cause,
    },
    /// The bucket, or the disk under it, has no more room.
    #[error("the bucket has no room for {what}")]
    Full {
        what: What,
        #[source]
        cause: Cause,
    },
    /// What the bucket has is not what was put there, read twice.
    #[error("{what} is corrupt")]
    Corrupt {
        what: What,
        #[source]
        why: Corruption,
    },
    /// Longer than the caller, or an artifact, may be.
    #[error("the artifact has more than {bytes_max} bytes")]
    TooLarge { bytes_max: u64 },
    /// A range that is not in the artifact.
    #[error("bytes {offset} to {end} are not in an artifact of {bytes} bytes")]
    Range { offset: u64, end: u64, bytes: u64 },
    /// Reading what was to be put failed.
    #[error("reading what was to be stored failed")]
    Source(#[source] Arc<io::Error>),
    /// The put went on for days: a sweep may have taken its first pieces. A new one uploads them.
    #[error("storing took so long that its first pieces may be gone")]
    Outlived,
    /// The bucket was laid out by another version of this program.
    #[error("the bucket has another layout: it begins with {found:?}")]
    Layout { found: String },
    /// The process is ending.
    #[error("the work was given up")]
    Ended,
}

/// What an operation was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Manifest(Digest),
    Piece(Digest),
    /// A list of objects.
    Listing,
    /// The object that says which layout the bucket has.
    Layout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Find,
    List,
    Delete,
}

/// What is wrong with what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    #[error(transparent)]
    Piece(#[from] Wrong),
    #[error(transparent)]
    Manifest(#[from] NotAManifest),
}

/// What was behind a refusal or failure, as far as it can be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("status {status}{}", .code.as_deref().map(|c| format!(", {c}")).unwrap_or_default())]
    Status {
        status: u16,
        code: Option<String>,
        retry_after: Option<Duration>,
    },
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no whole answer within {} s", .0.as_secs_f32())]
    Slow(Duration),
    #[error("the connection was cut: {0}")]
    Cut(String),
    #[error("the answer is longer than {bytes_max} bytes")]
    TooLong { bytes_max: u64 },
    #[error("the disk: {0}")]
    Disk(io::ErrorKind),
    #[error("{0}")]
    Unexpected(String),
}

impl ArtifactError {
    /// Whether the same call may do better a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Outlived => true,
            Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::Full { .. }
            | Self::Corrupt { .. }
            | Self::TooLarge { .. }
            | Self::Range { .. }
            | Self::Source(_)
            | Self::Layout { .. }
            | Self::Ended => false,
        }
    }

    /// What a reader said, from what [`tokio::io::AsyncRead`] lets through; gives other errors back.
    pub fn from_io(error: io::Error) -> Result<Self, io::Error> {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Self>())
        {
            Some(ours) => Ok(ours.clone()),
            None => Err(error),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(digest) => write!(f, "manifest {digest}"),
            Self::Piece(digest) => write!(f, "piece {digest}"),
            Self::Listing => f.write_str("its objects"),
            Self::Layout => f.write_str("its layout"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Find => "look for",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}
