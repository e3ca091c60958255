//! The agent's own limit of open files, which programs that it starts do not inherit.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::OPEN_FILES;

static BEFORE: OnceLock<(u64, u64)> = OnceLock::new();

/// Raises the soft limit as far as the hard one and our own bound allow.
pub fn raise_limit() {
    let before = getrlimit(Resource::Nofile);
    let unlimited = u64::MAX;
    let (current, maximum) = (
        before.current.unwrap_or(unlimited),
        before.maximum.unwrap_or(unlimited),
    );
    let wanted = maximum.min(OPEN_FILES);
    if current < wanted {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: before.maximum,
        };
        // The limit as it was works, too: fewer connections at once.
        if setrlimit(Resource::Nofile, raised).is_ok() {
            let _ = BEFORE.set((current, maximum));
        }
    }
}

/// What programs get, if it differs from the agent's own.
pub fn limit_of_programs() -> Option<(u64, u64)> {
    BEFORE.get().copied()
}
