//! How many sandboxes a team has at once.
//!
//! A set of ids for each team, so that taking and giving back are idempotent: a kill, the node's
//! event and a reconciler may all give back the same one. It is rebuilt from the store at start.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_store::{SandboxFilter, StoreError};
use casemate_types::{SandboxId, TeamId};

use crate::Control;

/// The team has as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the team has {max} sandboxes, as many as it may")]
pub struct QuotaReached {
    pub max: u32,
}

#[derive(Default)]
pub(crate) struct Quota {
    teams: Mutex<HashMap<TeamId, Held>>,
}

/// A team's sandboxes, and what there was of them since the last look.
#[derive(Default)]
struct Held {
    sandboxes: HashSet<SandboxId>,
    seen: Seen,
    /// Of the last look.
    seen_before: Seen,
}

/// What a team had and did between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The most sandboxes at once.
    pub(crate) most: u32,
    pub(crate) started: u32,
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
        if held.sandboxes.len() >= max as usize {
            return Err(QuotaReached { max });
        }
        held.insert(sandbox);
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
        teams.entry(team.clone()).or_default().insert(sandbox);
    }

    pub(crate) fn give_back(&self, team: &TeamId, sandbox: &SandboxId) {
        let mut teams = self.lock();
        if let Some(held) = teams.get_mut(team) {
            held.sandboxes.remove(sandbox);
        }
    }

    /// One began to run, wherever it was asked for.
    pub(crate) fn note_start(&self, team: &TeamId) {
        let mut teams = self.lock();
        let seen = &mut teams.entry(team.clone()).or_default().seen;
        seen.started = seen.started.saturating_add(1);
    }

    /// What each team had and did since the last look. A team that has nothing any more is named
    /// once with nothing, then forgotten.
    pub(crate) fn look(&self) -> Vec<(TeamId, Seen)> {
        let mut teams = self.lock();
        let mut all = Vec::new();
        teams.retain(|team, held| {
            let seen = std::mem::take(&mut held.seen);
            held.seen.most = count(&held.sandboxes);
            let nothing = Seen::default();
            if seen != nothing || held.seen_before != nothing {
                all.push((team.clone(), seen));
            }
            held.seen_before = seen;
            !held.sandboxes.is_empty() || seen != nothing
        });
        all
    }

    /// Of all teams.
    pub(crate) fn total(&self) -> usize {
        self.lock().values().map(|held| held.sandboxes.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TeamId, Held>> {
        self.teams
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

impl Held {
    fn insert(&mut self, sandbox: &SandboxId) {
        self.sandboxes.insert(sandbox.clone());
        self.seen.most = self.seen.most.max(count(&self.sandboxes));
    }
}

fn count(sandboxes: &HashSet<SandboxId>) -> u32 {
    u32::try_from(sandboxes.len()).unwrap_or(u32::MAX)
}

impl Place {
    /// It lives: whoever sees it end gives the place back.
    pub(crate) fn keep(self) {
        self.quota.note_start(&self.team);
        self.keep_uncounted();
    }

    /// The same where all starts are seen at the nodes.
    pub(crate) fn keep_uncounted(mut self) {
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

impl Control {
    /// A place for one more sandbox, until it has a row. [`StoreError::TeamFull`]: there is none.
    ///
    /// Among several servers the row decides ([`Self::running_max`]): what is known here may be old,
    /// so the store is asked before it refuses.
    pub(crate) async fn take_place(
        &self,
        team: &TeamId,
        sandbox: &SandboxId,
        max: u32,
    ) -> Result<Place, StoreError> {
        let full = match self.quota.take(team, sandbox, max) {
            Ok(place) => return Ok(place),
            Err(full) => StoreError::TeamFull { max: full.max },
        };
        if self.shared().is_none() {
            return Err(full);
        }
        let running = SandboxFilter::running(team.clone());
        if self.store.sandbox_count(&running).await? >= u64::from(max) {
            return Err(full);
        }
        let place = self.quota.take(team, sandbox, u32::MAX);
        place.map_err(|_| full)
    }

    /// What the row of one that begins to run is counted against: nothing where this process alone
    /// counts.
    pub(crate) fn running_max(&self, max: u32) -> Option<u32> {
        self.shared().map(|_| max)
    }

    /// It has its row.
    pub(crate) fn keep_place(&self, place: Place) {
        match self.shared() {
            None => place.keep(),
            Some(_) => place.keep_uncounted(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_tells_of_what_came_and_went_meanwhile_and_of_nothing_once() {
        let quota = Arc::new(Quota::default());
        let team = TeamId::parse("0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162").unwrap();
        let ids = [
            SandboxId::random(),
            SandboxId::random(),
            SandboxId::random(),
        ];
        for id in &ids[..2] {
            quota.take(&team, id, 3).unwrap().keep();
        }
        drop(quota.take(&team, &ids[2], 3).unwrap());
        quota.give_back(&team, &ids[0]);
        let seen = |most, started| vec![(team.clone(), Seen { most, started })];
        assert_eq!(quota.look(), seen(3, 2));
        assert_eq!(quota.look(), seen(1, 0));
        quota.give_back(&team, &ids[1]);
        assert_eq!(quota.look(), seen(1, 0));
        assert_eq!(quota.look(), seen(0, 0));
        assert_eq!(quota.look(), []);
        assert_eq!(quota.total(), 0);
    }
}
