//! Other servers over the same store: who is there, and what each of them does for all.
//!
//! Every server beats in the store's table. One that was not heard of for long is dead: what it had
//! begun is given up by the others. That is judged only while one's own beats came through all that
//! time and the database's clock was not set in it, since a database that was away makes nobody dead.
//! A process that is alone on its store ([`Sharing::Alone`]) does none of this.

pub mod clock;
pub mod fencing;
pub(crate) mod keeping;
pub(crate) mod news;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use casemate_store::{ServerBeat, StoreError};
use casemate_types::steady::{self, Exchange};
use casemate_types::{Timestamp, chain};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Control;
use crate::config::{Shared, Sharing};
use crate::templates::start;
use clock::DatabaseClock;
use fencing::Fencing;

/// What the dead left is looked for so often, too: one may have come and gone between two beats.
const BURIED_EVERY: Duration = Duration::from_secs(60);
/// Those of which nothing was heard for so long leave the table.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// The lease of whoever tidies up for all.
const JANITOR: &str = "janitor";

/// What is known of the other servers.
pub(crate) struct Servers {
    heard: Mutex<Heard>,
    /// Held over what is noted of it.
    clock: AsyncMutex<DatabaseClock>,
    /// Whether it is this one that tidies up. Alone it always is.
    janitor: watch::Sender<bool>,
}

#[derive(Default)]
struct Heard {
    /// As of the last look.
    alive: HashSet<String>,
    /// Since when every beat came through in time, and the last one that did.
    unbroken: Option<(Instant, Instant)>,
    /// Whose doings were looked through last, and when.
    buried: Option<(HashSet<String>, Instant)>,
}

impl Servers {
    pub(crate) fn new(sharing: &Sharing) -> Self {
        Self {
            heard: Mutex::default(),
            clock: AsyncMutex::default(),
            janitor: watch::Sender::new(matches!(sharing, Sharing::Alone)),
        }
    }

    /// A beat that was begun then came through.
    fn beaten(&self, begun: Instant, alive: HashSet<String>, dead_after: Duration) {
        let mut heard = self.lock();
        let since = match heard.unbroken {
            Some((since, last)) if begun.duration_since(last) < dead_after / 2 => since,
            Some(_) | None => begun,
        };
        heard.unbroken = Some((since, begun));
        heard.alive = alive;
    }

    /// Silence by a clock that was set says nothing of the time before.
    fn begin_anew(&self) {
        self.lock().unbroken = None;
    }

    /// Whether silence means death.
    fn is_sure(&self, dead_after: Duration) -> bool {
        self.is_sure_for(dead_after, dead_after)
    }

    /// The same of a silence that is longer than that of the dead.
    pub(crate) fn is_sure_for(&self, silence: Duration, dead_after: Duration) -> bool {
        let unbroken = self.lock().unbroken;
        unbroken.is_some_and(|(since, last)| {
            since.elapsed() >= silence && last.elapsed() < dead_after / 2
        })
    }

    /// Whether somebody died since the last time, or may have unnoticed.
    fn must_bury(&self) -> bool {
        let mut heard = self.lock();
        let heard = &mut *heard;
        let is_due = heard.buried.as_ref().is_none_or(|(alive, at)| {
            at.elapsed() >= BURIED_EVERY || !alive.is_subset(&heard.alive)
        });
        if !is_due {
            // Those who are new may die as well.
            if let Some((alive, _)) = &mut heard.buried {
                alive.clone_from(&heard.alive);
            }
        }
        is_due
    }

    fn buried(&self) {
        let mut heard = self.lock();
        heard.buried = Some((heard.alive.clone(), Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("no holder of this lock panics")
    }
}

/// For ever.
pub(crate) async fn run(control: Arc<Control>) {
    let Some(shared) = control.shared() else {
        return;
    };
    let times = shared.times;
    let (_always, wanted) = watch::channel(true);
    let janitor = keeping::keep(&control, times, JANITOR, &control.servers.janitor, wanted);
    let beating = async {
        let mut every = interval(times.beat_every);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fencing = Fencing::default();
        loop {
            every.tick().await;
            if let Err(error) = control.beat().await {
                tracing::warn!(
                    error = chain(&error),
                    "could not tell the other servers that this one is here"
                );
            } else if let Err(error) = fencing.look(&control, times).await {
                tracing::warn!(
                    error = chain(&error),
                    "could not look for nodes that are lost"
                );
            }
        }
    };
    tokio::join!(janitor, beating);
}

impl Control {
    /// What is shared with other servers, if there may be any.
    pub(crate) fn shared(&self) -> Option<&Shared> {
        match &self.config.servers {
            Sharing::Alone => None,
            Sharing::Several(shared) => Some(shared),
        }
    }

    /// Whether this server tidies up for all.
    pub(crate) fn is_janitor(&self) -> bool {
        *self.servers.janitor.borrow()
    }

    /// Returns once it does.
    pub(crate) async fn until_janitor(&self) {
        let mut is_ours = self.servers.janitor.subscribe();
        // The sender is ours, so it does not go.
        let _ = is_ours.wait_for(|is_ours| *is_ours).await;
    }

    /// Says that this server is here, hears who else is, and gives up what the dead had begun.
    pub(crate) async fn beat(&self) -> Result<(), StoreError> {
        let Some(shared) = self.shared() else {
            return Ok(());
        };
        let begun = Instant::now();
        let beat = ServerBeat {
            id: self.owner.clone(),
            address: shared.address.clone(),
            version: shared.version.clone(),
        };
        let dead_after = shared.times.dead_after;
        // Before the clock is looked at: one that is set in between makes nobody dead.
        let alive = self.alive(dead_after).await?;
        self.say_alive(&beat).await?;
        self.servers.beaten(begun, alive, dead_after);
        self.drop_cancelled_builds().await?;
        if self.servers.is_sure(dead_after) && self.servers.must_bury() {
            self.bury(dead_after).await?;
            self.servers.buried();
            self.store.server_forget(FORGOTTEN_AFTER).await?;
        }
        Ok(())
    }

    async fn say_alive(&self, beat: &ServerBeat) -> Result<(), StoreError> {
        let mut clock = self.servers.clock.lock().await;
        let asked = steady::since_boot_us();
        let said = self.store.server_beat(beat).await?;
        let set_by = clock.read(Exchange {
            asked,
            answered: steady::since_boot_us(),
            said: said.as_microsecond(),
        });
        if let Some(set_by) = set_by {
            tracing::warn!(
                seconds = set_by / 1_000_000,
                "the database's clock was set by {} s; deadlines stay where they are",
                set_by / 1_000_000
            );
            self.servers.begin_anew();
        }
        clock.note(&*self.store).await
    }

    async fn alive(&self, dead_after: Duration) -> Result<HashSet<String>, StoreError> {
        let listed = self.store.server_list(dead_after).await?;
        Ok(listed.into_iter().map(|server| server.id).collect())
    }

    /// Of whoever was not heard of for so long, and is not this server.
    pub(crate) async fn bury(&self, dead_after: Duration) -> Result<(), StoreError> {
        let orphaned = self.store.idempotency_orphan(&self.owner, dead_after);
        let orphaned = orphaned.await?;
        if orphaned > 0 {
            tracing::info!(
                keys = orphaned,
                "creates of processes that died have no known outcome"
            );
        }
        let (failure, now) = (start::interrupted(), Timestamp::now());
        let failed = self
            .store
            .build_fail_building(&self.owner, dead_after, &failure, now)
            .await?;
        if !failed.is_empty() {
            let builds = failed.len();
            tracing::info!(builds, "{builds} builds were cut off with their processes");
        }
        Ok(())
    }

    /// Whether another server that lives made it, and so looks after it until it has a row.
    pub(crate) async fn is_anothers(&self, creator: &str) -> Result<bool, StoreError> {
        let Some(shared) = self.shared() else {
            return Ok(false);
        };
        if creator.is_empty() || creator == self.owner {
            return Ok(false);
        }
        let dead_after = shared.times.dead_after;
        if !self.servers.is_sure(dead_after) || self.servers.lock().alive.contains(creator) {
            return Ok(true);
        }
        // It may have come a moment ago: it said so before it made anything.
        Ok(self.alive(dead_after).await?.contains(creator))
    }

    /// Gives back what this server does for all, and says that it goes.
    pub(crate) async fn leave_servers(&self) {
        if self.shared().is_none() {
            return;
        }
        let nodes = self.nodes.all().into_iter();
        let names = nodes.map(|node| keeping::of_node(&node.name));
        for name in names.chain([JANITOR.to_owned()]) {
            if let Err(error) = self.store.lease_give(&name, &self.owner).await {
                tracing::debug!(error = chain(&error), "lease {name} runs out by itself");
            }
        }
        if let Err(error) = self.store.server_leave(&self.owner).await {
            tracing::debug!(
                error = chain(&error),
                "the others find out that this one went"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD_AFTER: Duration = Duration::from_secs(10);

    fn names(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_judged_dead_before_our_own_beats_have_held() {
        let servers = Servers::new(&Sharing::Alone);
        let beat = |alive: &[&str]| servers.beaten(Instant::now(), names(alive), DEAD_AFTER);
        for _ in 0..5 {
            beat(&["a"]);
            assert!(!servers.is_sure(DEAD_AFTER));
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        beat(&["a"]);
        assert!(servers.is_sure(DEAD_AFTER));
        // The database is away for a while.
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(!servers.is_sure(DEAD_AFTER));
        beat(&[]);
        assert!(!servers.is_sure(DEAD_AFTER));
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_was_away_makes_no_silence_long() {
        let servers = Servers::new(&Sharing::Alone);
        let silence = DEAD_AFTER * 6;
        let beat_for = async |time: Duration| {
            let until = Instant::now() + time;
            while Instant::now() < until {
                servers.beaten(Instant::now(), names(&["a"]), DEAD_AFTER);
                tokio::time::advance(Duration::from_secs(2)).await;
            }
            servers.is_sure_for(silence, DEAD_AFTER)
        };
        assert!(!beat_for(silence / 2).await);
        assert!(beat_for(silence / 2).await);
        tokio::time::advance(DEAD_AFTER).await;
        assert!(!beat_for(silence / 2).await);
        assert!(servers.is_sure(DEAD_AFTER), "that one is short");
        assert!(beat_for(silence / 2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_dead_left_is_looked_for_at_first_after_each_death_and_now_and_then() {
        let servers = Servers::new(&Sharing::Alone);
        let beat = |alive: &[&str]| servers.beaten(Instant::now(), names(alive), DEAD_AFTER);
        let must = |alive: &[&str]| {
            beat(alive);
            let must = servers.must_bury();
            if must {
                servers.buried();
            }
            must
        };
        assert!(must(&["a", "b"]));
        assert!(!must(&["a", "b"]));
        assert!(!must(&["a", "b", "c"]));
        assert!(must(&["a", "b"]), "c is dead");
        assert!(!must(&["a", "b"]));
        tokio::time::advance(BURIED_EVERY).await;
        assert!(must(&["a", "b"]));
    }
}
