//! How much a build leaves in the store for the next ones.
//!
//! The row of each state has all its variables, and a step that sets one more takes no time: without a
//! bound one request would write gigabytes. Beyond it the build goes on, and its further steps are not
//! kept. What rows of several builds take together the store bounds
//! ([`casemate_store::BuildCache::built_trim`]).

use casemate_types::BuildContext;

use super::log::{Level, Phase};
use super::steps::bytes_of;

/// Of the rows of one build's steps, bytes.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Of one of them without its variables.
const ROW_BYTES: usize = 1024;

/// Bytes that a build may still leave; `None` once something was not kept.
pub(super) struct StillKept(Option<usize>);

impl Default for StillKept {
    fn default() -> Self {
        Self(Some(KEPT_BYTES_MAX))
    }
}

impl StillKept {
    /// Whether a state with this context is kept. Once one is not, none is: the files of those behind
    /// it are in the sandbox alone.
    pub(super) fn takes(&mut self, context: &BuildContext, phase: &Phase) -> bool {
        let Some(left) = self.0 else {
            return false;
        };
        let workdir = context.workdir.as_ref().map_or(0, String::len);
        self.0 = left.checked_sub(ROW_BYTES + bytes_of(context) + workdir);
        if self.0.is_none() {
            let text = "The variables of all steps together are too many to be kept: this step and \
                        those behind it will run again in the next build";
            phase.say(Level::Warn, text);
        }
        self.0.is_some()
    }
}
