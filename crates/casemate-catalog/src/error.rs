//! Why a catalog did not do as asked.

/// Of every port here.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It cannot be reached, does not answer in time, or is full. Nothing is known of what became
    /// of the call.
    #[error("the catalog cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A name, a number or a text is outside its limit: the caller's fault.
    #[error("{what} is outside its limit: {limit}")]
    Limit {
        what: &'static str,
        limit: &'static str,
    },
    /// What is kept under one of our keys is nothing of ours.
    #[error("{what} in the catalog cannot be read")]
    Damaged {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CatalogError {
    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Limit { .. } | Self::Damaged { .. } => false,
        }
    }
}
