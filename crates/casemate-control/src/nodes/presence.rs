//! What a node has, as it told last. Kept only where several servers share a store: what the others
//! do is seen here alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use casemate_rpc::{PausedSandbox, RunningSandbox};
use casemate_types::{SandboxId, TeamId, Timestamp};

#[derive(Default)]
pub(crate) struct Presence(Mutex<HashMap<SandboxId, There>>);

struct There {
    team: TeamId,
    /// Start of the run; `None` for one that rests, or waits for being claimed.
    runs_since: Option<Timestamp>,
    /// The node knows that it has a row.
    recorded: bool,
}

impl Presence {
    /// Whether a run begins with it, as far as was known.
    pub(crate) fn runs(&self, sandbox: &RunningSandbox) -> bool {
        let since = (!sandbox.warm).then_some(sandbox.started_at);
        let there = There {
            team: sandbox.team.clone(),
            runs_since: since,
            recorded: sandbox.recorded,
        };
        let before = self.lock().insert(sandbox.sandbox.clone(), there);
        since.is_some() && before.is_none_or(|before| before.runs_since != since)
    }

    pub(crate) fn rests(&self, sandbox: &PausedSandbox) {
        let there = There {
            team: sandbox.team.clone(),
            runs_since: None,
            recorded: sandbox.recorded,
        };
        self.lock().insert(sandbox.sandbox.clone(), there);
    }

    /// Whose it was, if it ran there.
    pub(crate) fn gone(&self, sandbox: &SandboxId) -> Option<TeamId> {
        let there = self.lock().remove(sandbox)?;
        there.runs_since.map(|_| there.team)
    }

    /// The node was told that these have rows.
    pub(crate) fn note_recorded(&self, sandboxes: &[SandboxId]) {
        let mut all = self.lock();
        for sandbox in sandboxes {
            if let Some(there) = all.get_mut(sandbox) {
                there.recorded = true;
            }
        }
    }

    /// Those that have rows, as the node knows.
    pub(crate) fn recorded(&self) -> Vec<SandboxId> {
        let all = self.lock();
        let recorded = all.iter().filter(|(_, there)| there.recorded);
        recorded.map(|(id, _)| id.clone()).collect()
    }

    /// Those that ran and are not among these any more.
    pub(crate) fn keep_only(
        &self,
        is_there: impl Fn(&SandboxId) -> bool,
    ) -> Vec<(TeamId, SandboxId)> {
        let mut all = self.lock();
        let gone = all.extract_if(|id, _| !is_there(id));
        let ran = gone.filter(|(_, there)| there.runs_since.is_some());
        ran.map(|(id, there)| (there.team, id)).collect()
    }

    /// How many it has.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Since when it runs, if it does.
    pub(crate) fn runs_since(&self, sandbox: &SandboxId) -> Option<Timestamp> {
        self.lock().get(sandbox)?.runs_since
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, There>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
