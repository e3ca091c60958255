//! Uploads that are under way: how many a team has at once, and what they take of its sum.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_types::TeamId;
use tokio::sync::Semaphore;

/// Uploads of one team at once; further ones wait, and their clients' bytes with them.
const TEAM_UPLOADS_MAX: usize = 32;

/// Uploads that are under way.
#[derive(Default)]
pub(crate) struct Uploads {
    teams: Arc<Mutex<HashMap<TeamId, UnderWay>>>,
    /// Held while files and rows are brought together.
    pub(super) settling: tokio::sync::Mutex<()>,
}

struct UnderWay {
    turns: Arc<Semaphore>,
    /// Bytes that came, or were announced.
    bytes: u64,
    /// Places that there are; with the last one the entry goes.
    places: usize,
}

/// One upload in the sum of its team.
pub(super) struct Place {
    teams: Arc<Mutex<HashMap<TeamId, UnderWay>>>,
    team: TeamId,
    bytes: u64,
}

impl Uploads {
    pub(super) fn place(&self, team: &TeamId) -> (Place, Arc<Semaphore>) {
        let mut teams = lock(&self.teams);
        let entry = teams.entry(team.clone()).or_insert_with(|| UnderWay {
            turns: Arc::new(Semaphore::new(TEAM_UPLOADS_MAX)),
            bytes: 0,
            places: 0,
        });
        entry.places += 1;
        let place = Place {
            teams: Arc::clone(&self.teams),
            team: team.clone(),
            bytes: 0,
        };
        (place, Arc::clone(&entry.turns))
    }
}

impl Place {
    /// What is counted for it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts this many bytes for it; what all of the team's have then.
    pub(super) fn grow_to(&mut self, bytes: u64) -> u64 {
        let mut teams = lock(&self.teams);
        let Some(entry) = teams.get_mut(&self.team) else {
            return bytes;
        };
        let more = bytes.saturating_sub(self.bytes);
        entry.bytes = entry.bytes.saturating_add(more);
        self.bytes += more;
        entry.bytes
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut teams = lock(&self.teams);
        if let Some(entry) = teams.get_mut(&self.team) {
            entry.bytes = entry.bytes.saturating_sub(self.bytes);
            entry.places -= 1;
            if entry.places == 0 {
                teams.remove(&self.team);
            }
        }
    }
}

fn lock(teams: &Mutex<HashMap<TeamId, UnderWay>>) -> MutexGuard<'_, HashMap<TeamId, UnderWay>> {
    teams.lock().expect("no holder of this lock panics")
}
