//! Errors that say which step failed: a system call's own error rarely tells.

use std::io;

/// One step of many failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct StepError {
    pub step: &'static str,
    #[source]
    pub source: io::Error,
}

/// Names the step whose result this is.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, StepError> {
        self.map_err(|error| StepError {
            step,
            source: error.into(),
        })
    }
}
