//! Why the history did not do as asked.

/// The cause below: a driver's error, bytes that cannot be read.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// What is kept is not what this version writes.
    #[error("{what} of the history cannot be read")]
    Corrupt {
        what: &'static str,
        #[source]
        source: Cause,
    },
    #[error("the history failed at {what}")]
    Unavailable {
        what: &'static str,
        #[source]
        source: Cause,
    },
}

impl HistoryError {
    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Corrupt { .. } => false,
        }
    }
}
