//! Why the store did not do as asked.

/// The cause below: a driver's error, a text that does not parse.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The row is not as the caller last saw it (another generation, or gone). Read it again and
    /// decide anew.
    #[error("{what} {id} has changed meanwhile")]
    Conflict { what: &'static str, id: String },
    /// A row with this id, name or hash is there already.
    #[error("{what} {id} exists already")]
    Exists { what: &'static str, id: String },
    /// The row refers to something that does not exist, such as a key to its team.
    #[error("{what} {id} refers to something that does not exist")]
    Dangling { what: &'static str, id: String },
    /// The team runs as many sandboxes as it may; nothing was written.
    #[error("the team runs {max} sandboxes, as many as it may")]
    TeamFull { max: u32 },
    /// A sandbox was to go on at a node that is in no list any more; nothing was written.
    #[error("node {node} was removed")]
    NodeGone { node: String },
    /// A value is beyond a limit that has a name.
    #[error("{what} has {size}, at most {max} is allowed")]
    TooLarge {
        what: &'static str,
        size: usize,
        max: usize,
    },
    /// The database cannot keep such a value, such as a NUL in a text.
    #[error("{what} {id} has a value that the database cannot keep")]
    Refused {
        what: &'static str,
        id: String,
        #[source]
        source: Cause,
    },
    /// What the database holds is not what this version writes.
    #[error("{what} {id} cannot be read")]
    Corrupt {
        what: &'static str,
        id: String,
        #[source]
        source: Cause,
    },
    /// Another writer held the database for too long, or no connection was to be had; nothing was
    /// written.
    #[error(transparent)]
    Busy(Cause),
    /// Nothing was written: its disk is full.
    #[error(transparent)]
    DiskFull(Cause),
    #[error("the database failed")]
    Unavailable(#[source] Cause),
}

impl StoreError {
    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy(_) | Self::DiskFull(_) | Self::Unavailable(_) => true,
            Self::Conflict { .. }
            | Self::Exists { .. }
            | Self::Dangling { .. }
            | Self::TeamFull { .. }
            | Self::NodeGone { .. }
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Corrupt { .. } => false,
        }
    }

    /// Whether what was to be written may be written all the same. Nothing that it would need may be
    /// undone then.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
