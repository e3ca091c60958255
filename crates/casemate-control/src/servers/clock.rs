//! The cluster's steady time beside the database's clock, from which a server takes it when it starts.
//!
//! That clock is set now and then, or another database takes over with its own. Servers that ran go on
//! counting as they did, and note by how much that is apart from the clock now: those that start later
//! count as they do, and as the nodes do, which have their time from servers.

use casemate_store::{Settings, Store, StoreError};
use casemate_types::steady::{self, Exchange};

/// By how much steady time is ahead of the database's clock, microseconds.
const STEADY_AHEAD: &str = "steady_ahead_us";
/// Two clocks are never read at one moment; what is apart by less is not noted.
const APART_MIN_US: i64 = 50_000;
/// What moves in one beat by as much was set.
const STEP_MIN_US: i64 = 1_000_000;

/// By how much steady time is ahead of the database's clock, microseconds, by what servers noted last.
/// A cluster's first server begins with that clock.
///
/// # Errors
/// The store's; and a note that is no number.
pub async fn noted(store: &(impl Settings + ?Sized)) -> Result<i64, StoreError> {
    let noted = store.setting_claim(STEADY_AHEAD, "0").await?;
    noted.parse().map_err(|_| StoreError::Corrupt {
        what: "setting",
        id: STEADY_AHEAD.into(),
        source: "no whole number".into(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Noted {
    /// As it was when this server started.
    #[default]
    Before,
    Due,
    Done,
}

/// What a server knows of the database's clock.
#[derive(Debug, Default)]
pub(super) struct DatabaseClock {
    /// By how much steady time was ahead of it when that was last seen to be another.
    ahead: Option<i64>,
    noted: Noted,
}

impl DatabaseClock {
    /// It was read. By how much it was set since the last time, microseconds, if it was.
    pub(super) fn read(&mut self, exchange: Exchange) -> Option<i64> {
        let ahead = steady::origin().saturating_sub(exchange.origin());
        let unsure = exchange.round_trip() / 2;
        let was = *self.ahead.get_or_insert(ahead);
        let moved = ahead.saturating_sub(was);
        if moved.saturating_abs() > unsure + APART_MIN_US {
            (self.ahead, self.noted) = (Some(ahead), Noted::Due);
        }
        (moved.saturating_abs() > unsure + STEP_MIN_US).then(|| moved.saturating_neg())
    }

    /// Notes, for servers to come, by how much it is apart from steady time.
    pub(super) async fn note(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let (Some(ahead), false) = (self.ahead, self.noted == Noted::Done) else {
            return Ok(());
        };
        // At a start it is read less well than by those who noted it; but it may have been set since.
        let apart_min = match self.noted {
            Noted::Before => STEP_MIN_US,
            Noted::Due | Noted::Done => APART_MIN_US,
        };
        let apart = ahead.saturating_sub(noted(store).await?).saturating_abs();
        if apart > apart_min {
            store.setting_put(STEADY_AHEAD, &ahead.to_string()).await?;
        }
        self.noted = Noted::Done;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use casemate_store::SqlStore;

    use super::*;

    const SECOND: i64 = 1_000_000;

    /// What a clock says that is so much ahead of steady time.
    fn said(ahead_of_steady: i64, round_trip: i64) -> Exchange {
        let asked = steady::since_boot_us();
        Exchange {
            asked,
            answered: asked + round_trip,
            said: steady::origin() + asked + round_trip / 2 + ahead_of_steady,
        }
    }

    async fn store(dir: &tempfile::TempDir) -> SqlStore {
        SqlStore::open(&dir.path().join("store")).await.unwrap()
    }

    #[tokio::test]
    async fn a_step_of_the_clock_is_noted_for_those_who_start_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let (mut first, mut second) = (DatabaseClock::default(), DatabaseClock::default());
        for clock in [&mut first, &mut second] {
            assert_eq!(clock.read(said(0, 100)), None);
            clock.note(&store).await.unwrap();
        }
        assert_eq!(noted(&store).await.unwrap(), 0);
        for clock in [&mut first, &mut second] {
            assert_eq!(clock.read(said(60 * SECOND, 100)), Some(60 * SECOND));
            clock.note(&store).await.unwrap();
            assert_eq!(noted(&store).await.unwrap(), -60 * SECOND);
            assert_eq!(clock.read(said(60 * SECOND, 100)), None, "once");
        }
        assert_eq!(first.read(said(-5 * SECOND, 100)), Some(-65 * SECOND));
        first.note(&store).await.unwrap();
        assert_eq!(noted(&store).await.unwrap(), 5 * SECOND);
    }

    #[tokio::test]
    async fn answers_that_took_long_and_small_drifts_are_no_steps() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let mut clock = DatabaseClock::default();
        for (ahead, round_trip) in [
            (0, 100),
            (40_000, 100),
            (3 * SECOND, 8 * SECOND),
            (200_000, 100),
        ] {
            assert_eq!(clock.read(said(ahead, round_trip)), None, "{ahead}");
            clock.note(&store).await.unwrap();
        }
        assert_eq!(noted(&store).await.unwrap(), -200_000, "small ones add up");
    }

    #[tokio::test]
    async fn a_start_that_read_the_clock_badly_changes_nothing_and_one_before_a_step_does() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        for (ahead, expected) in [(300_000, 0), (2 * SECOND, -2 * SECOND)] {
            let mut clock = DatabaseClock::default();
            assert_eq!(clock.read(said(ahead, 100)), None);
            clock.note(&store).await.unwrap();
            assert_eq!(noted(&store).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_note_that_is_no_number_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        store.setting_put(STEADY_AHEAD, "soon").await.unwrap();
        let error = noted(&store).await.unwrap_err();
        assert_eq!(error.to_string(), "setting steady_ahead_us cannot be read");
    }
}
