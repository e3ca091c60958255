//! What of a node cannot be stored, and why: counted each time, told seldom.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use casemate_cluster::Seldom;
use casemate_rpc::carrier::CarrierError;
use casemate_types::chain;

use super::CarryError;

/// Between two lines of one kind about one node: what is tried again every few seconds fails for as long
/// as the bucket is away.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Of one node.
pub(crate) struct Failing {
    /// All files of paused sandboxes; those of one; all layers; one of them.
    pub(super) paused: Seldom,
    pub(super) one_paused: Seldom,
    pub(super) layers: Seldom,
    pub(super) one_layer: Seldom,
    /// Why nothing could be stored last; `None` once something was.
    why: Mutex<Option<String>>,
}

impl Default for Failing {
    fn default() -> Self {
        let seldom = || Seldom::every(TELL_EVERY);
        Self {
            paused: seldom(),
            one_paused: seldom(),
            layers: seldom(),
            one_layer: seldom(),
            why: Mutex::default(),
        }
    }
}

impl Failing {
    pub(crate) fn why(&self) -> Option<String> {
        self.held().clone()
    }

    pub(super) fn noted<T>(&self, stored: Result<T, CarrierError>) -> Result<T, CarrierError> {
        *self.held() = stored.as_ref().err().map(reason);
        stored
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without what it happened to, which is another one each time.
fn reason(error: &CarrierError) -> String {
    match error {
        CarrierError::Full { why, .. }
        | CarrierError::Unavailable { why, .. }
        | CarrierError::Corrupt { why, .. }
        | CarrierError::NotThere { why, .. }
        | CarrierError::Invalid { why } => why.clone(),
        CarrierError::Unreachable => chain(error),
    }
}

impl CarryError {
    /// It is the bucket's, or of the way there.
    pub(super) fn is_of_bucket(&self) -> bool {
        matches!(self, Self::Carrier(_))
    }
}
