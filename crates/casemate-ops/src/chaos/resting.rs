//! Pausing a sandbox of the load, and letting it go on.

use std::time::{Duration, Instant};

use casemate_client::ApiError;
use casemate_client::api::{Kept, PauseMode, State};

use super::asking::{Changed, Means, PATIENCE, is_conflict};
use super::ledger::add;
use super::life::{End, Life, Next, PAUSE_MS};
use super::lot;
use super::world::{LONG, Standing};

/// One pause in so many keeps files alone, and one resume of a kept memory begins without it.
const FILES_ONE_IN: usize = 3;
/// One in so many that rest is ended then, and one in so many with its memory is woken by traffic.
const ENDED_ONE_IN: usize = 6;
const WOKEN_ONE_IN: usize = 3;
/// Looks at one that is paused.
const LOOKS_MAX: u64 = 4;
/// How often its state is asked for while it is to fall asleep.
const LOOK: Duration = Duration::from_millis(500);
/// After its deadline, and while somebody is there to pause it.
const GRACE: u32 = 10;

impl Life<'_> {
    /// Pauses it, sees that it rests, and lets it go on, one way or another.
    pub(super) async fn rest(&mut self) -> Next {
        let kept = some_kept();
        self.world.stand(&self.id, Standing::Stands);
        let (api, id) = (&self.world.server.api, &self.id);
        let paused = self
            .world
            .change((id, "pause it"), || api.sandbox_pause(id, kept), made)
            .await;
        if let Changed::No = paused {
            return Next::Leave;
        }
        add(&self.world.ledger.paused);
        if kept == Kept::Files {
            add(&self.world.ledger.paused_files);
        }
        self.rest_and_go_on(kept).await
    }

    /// Until its deadline has paused it; then it goes on. One that was asked for something up to then
    /// may have been woken by it, for minutes.
    pub(super) async fn fall_asleep(&mut self, deadline: Instant) -> Next {
        if Instant::now() >= deadline {
            self.end = End::Asked;
            return Next::End;
        }
        tokio::time::sleep_until(deadline.into()).await;
        let mut awake = 0;
        let begun = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let retries = self.world.ledger.retries();
            match self.found().await {
                None => return Next::Leave,
                Some((State::Paused, _)) => break,
                // Later while nobody was there: only answers count.
                Some((State::Running, _)) if self.world.ledger.retries() == retries => awake += 1,
                Some((State::Running, _)) => awake = 0,
            }
            if awake > GRACE || begun.elapsed() > PATIENCE {
                let sentence = format!("{} runs beyond the deadline that pauses it", self.id);
                self.world.ledger.wrong(sentence);
                return Next::Leave;
            }
        }
        add(&self.world.ledger.fell_asleep);
        self.end = End::Asked;
        self.rest_and_go_on(Kept::Memory).await
    }

    async fn rest_and_go_on(&mut self, kept: Kept) -> Next {
        self.world.stand(&self.id, Standing::Paused);
        let asleep = Instant::now();
        for _ in 0..lot::between(1..LOOKS_MAX) {
            tokio::time::sleep(Duration::from_millis(lot::between(PAUSE_MS))).await;
            if !self.is_found_paused(kept).await {
                return Next::Leave;
            }
        }
        let long = asleep.elapsed();
        self.world.stand(&self.id, Standing::Stands);
        if lot::index(ENDED_ONE_IN) == 0 {
            return Next::End;
        }
        if kept == Kept::Memory && lot::index(WOKEN_ONE_IN) == 0 {
            self.memory.slept(long);
            return self.wake().await.into();
        }
        let from = match kept {
            Kept::Memory => some_kept(),
            Kept::Files => Kept::Memory,
        };
        if !self.resume(from).await {
            return Next::Leave;
        }
        let counts = match (kept, from) {
            (Kept::Memory, Kept::Memory) => {
                self.memory.slept(long);
                true
            }
            // Its processes are gone, also the one that counted.
            (Kept::Files, _) | (_, Kept::Files) => self.start_counting().await,
        };
        (counts && self.look().await).into()
    }

    async fn resume(&mut self, from: Kept) -> bool {
        let (api, id) = (&self.world.server.api, &self.id);
        let connect = || api.sandbox_connect(id, Some(LONG), from);
        // While a try whose answer was lost is at it.
        let busy = |error: &ApiError| match is_conflict(error) {
            true => Means::Wait,
            false => Means::Wrong,
        };
        let resumed = self.world.change((id, "resume it"), connect, busy).await;
        if let Changed::No = resumed {
            return false;
        }
        self.world.stand(&self.id, Standing::Runs(None));
        add(&self.world.ledger.resumed);
        true
    }

    /// By asking its agent for something.
    async fn wake(&mut self) -> bool {
        self.is_waking = true;
        let looked = self.look().await;
        self.is_waking = false;
        if looked {
            // Its new deadline is as far away as the old one was.
            self.world.stand(&self.id, Standing::Runs(None));
            add(&self.world.ledger.woken);
        }
        looked
    }

    async fn is_found_paused(&self, kept: Kept) -> bool {
        let wanted = match kept {
            Kept::Memory => PauseMode::Full,
            Kept::Files => PauseMode::Filesystem,
        };
        match self.found().await {
            None => false,
            Some((State::Paused, Some(mode))) if mode == wanted => true,
            Some((state, mode)) => {
                let id = &self.id;
                let sentence = format!("{id} was paused ({wanted:?}) and is {state:?} ({mode:?})");
                self.world.ledger.wrong(sentence);
                false
            }
        }
    }

    /// As it is found. `None`: it is not, which is noted.
    async fn found(&self) -> Option<(State, Option<PauseMode>)> {
        let api = &self.world.server.api;
        let found = self.ask_api("ask for it", || api.sandbox_by_id(&self.id));
        match found.await? {
            Some(detail) => Some((detail.state, detail.pause_mode)),
            None => {
                let id = &self.id;
                self.world
                    .ledger
                    .lost(format!("{id} rests and is not found"));
                None
            }
        }
    }
}

fn some_kept() -> Kept {
    match lot::index(FILES_ONE_IN) {
        0 => Kept::Files,
        _ => Kept::Memory,
    }
}

/// It is paused already.
fn made(error: &ApiError) -> Means {
    match is_conflict(error) {
        true => Means::Made,
        false => Means::Wrong,
    }
}
