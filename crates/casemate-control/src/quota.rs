//! How many sandboxes a team has at once.
//!
//! A set of ids for each team, so that taking and giving back are idempotent: a kill, the node's
//! event and a reconciler may all give back the same one. It is rebuilt from the store at start.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_types::{SandboxId, TeamId};

/// The team has as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the team has {max} sandboxes, as many as it may")]
pub struct QuotaReached {
    pub max: u32,
}

#[derive(Default)]
pub(crate) struct Quota {
    teams: Mutex<HashMap<TeamId, HashSet<SandboxId>>>,
}

/// One place, given back on drop unless the sandbox came to life.
pub(crate) struct Place {
    quota: Arc<Quota>,
    team: TeamId,
    sandbox: SandboxId,
    kept: bool,
}

impl Quota {
    pub(crate) fn take(
        self: &Arc<Self>,
        team: &TeamId,
        sandbox: &SandboxId,
        max: u32,
    ) -> Result<Place, QuotaReached> {
        let mut teams = self.lock();
        let held = teams.entry(team.clone()).or_default();
        if held.len() >= max as usize {
            return Err(QuotaReached { max });
        }
        held.insert(sandbox.clone());
        Ok(Place {
            quota: Arc::clone(self),
            team: team.clone(),
            sandbox: sandbox.clone(),
            kept: false,
        })
    }

    /// Counts one that runs already, whatever the limit.
    pub(crate) fn count(&self, team: &TeamId, sandbox: &SandboxId) {
        let mut teams = self.lock();
        teams
            .entry(team.clone())
            .or_default()
            .insert(sandbox.clone());
    }

    pub(crate) fn give_back(&self, team: &TeamId, sandbox: &SandboxId) {
        let mut teams = self.lock();
        if let Some(held) = teams.get_mut(team) {
            held.remove(sandbox);
            if held.is_empty() {
                teams.remove(team);
            }
        }
    }

    /// Of all teams.
    pub(crate) fn total(&self) -> usize {
        self.lock().values().map(HashSet::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TeamId, HashSet<SandboxId>>> {
        self.teams
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

impl Place {
    /// It lives: whoever sees it end gives the place back.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            self.quota.give_back(&self.team, &self.sandbox);
        }
    }
}
