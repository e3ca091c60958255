//! One sandbox of the load, from its create to its end.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use casemate_client::Envd;
use casemate_client::api::Sandbox;
use casemate_client::envd::process::Command;
use casemate_types::chain;

use super::asking::{ANSWER, PATIENCE, RETRY, is_nobody_there};
use super::ledger::add;
use super::lot;
use super::memory::{COUNTER, Counter, Memory};
use super::snapshots::Snapshot;
use super::world::{DOUBT, Standing, World, lock};

/// After its deadline, and while somebody is there to end it.
const GRACE: Duration = Duration::from_secs(5);
/// Things that are done with one sandbox, and the pause before each.
const STEPS_MAX: u64 = 6;
pub(super) const PAUSE_MS: std::ops::Range<u64> = 100..1200;
const OUTPUT_BYTES_MAX: usize = 4 << 20;
const BLOB_BYTES: u32 = 256 << 10;

/// One that was acknowledged, and what it must say.
pub(super) struct Life<'a> {
    pub(super) world: &'a World,
    pub(super) id: String,
    pub(super) envd: Envd,
    pub(super) end: End,
    /// What it began with; while it lives that is not deleted.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) memory: Memory,
    /// What is asked of it now is what wakes it.
    pub(super) is_waking: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// Its client ends it.
    Asked,
    Expires(Instant),
    /// It is paused by its deadline, and later ended by its client.
    FallsAsleep(Instant),
}

/// How a sandbox is gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    /// It is to be ended as it is.
    End,
    /// Nothing more can be said of it, which is noted.
    Leave,
}

impl From<bool> for Next {
    fn from(goes_on: bool) -> Self {
        match goes_on {
            true => Self::GoOn,
            false => Self::Leave,
        }
    }
}

/// Makes sandboxes one after the other until the run is over.
pub(super) async fn sandboxes(world: Arc<World>) {
    while !world.is_over() {
        if let Some(life) = world.create().await {
            life.live().await;
        } else {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Compares the lists with what is known, again and again.
pub(super) async fn lists(world: Arc<World>) {
    while !world.is_over() {
        world.compare_list().await;
        tokio::time::sleep(Duration::from_millis(lot::between(PAUSE_MS))).await;
        world.compare_snapshots().await;
    }
}

impl<'a> Life<'a> {
    /// `None`: what the create answered cannot be used, which is noted.
    pub(super) fn new(
        world: &'a World,
        made: &Sandbox,
        end: End,
        memory: Memory,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Option<Self> {
        let (server, id) = (&world.server, made.sandbox_id.clone());
        let token = made.envd_access_token.as_deref();
        match server.api.envd(&server.edge, &id, token) {
            Ok(envd) => Some(Self {
                world,
                id,
                envd,
                end,
                snapshot,
                memory,
                is_waking: false,
            }),
            Err(error) => {
                let sentence = format!("a create answered rubbish: {}", chain(&error));
                world.ledger.wrong(sentence);
                None
            }
        }
    }
}

impl Life<'_> {
    async fn live(mut self) {
        if !self.begin().await && !self.is_in_doubt() {
            return;
        }
        for _ in 0..lot::between(1..STEPS_MAX) {
            tokio::time::sleep(Duration::from_millis(lot::between(PAUSE_MS))).await;
            if self.world.is_over() || self.is_in_doubt() {
                break;
            }
            match self.step().await {
                Next::GoOn => {}
                Next::End => break,
                // Its deadline came in between.
                Next::Leave if self.is_in_doubt() => break,
                Next::Leave => return,
            }
        }
        if let End::FallsAsleep(deadline) = self.end
            && self.fall_asleep(deadline).await == Next::Leave
        {
            return;
        }
        self.finish().await;
    }

    /// Something that is done with it. What needs it to run for a while is not done with one that
    /// has a deadline.
    async fn step(&mut self) -> Next {
        let is_endless = matches!(self.end, End::Asked);
        match lot::index(20) {
            0..=4 if is_endless => self.rest().await,
            5..=8 if is_endless => self.keep().await.into(),
            9..=10 if is_endless => self.fork().await.into(),
            11..=12 => {
                self.world.delete_snapshot().await;
                Next::GoOn
            }
            _ => self.look().await.into(),
        }
    }

    /// Sees that it is what it should be, once.
    pub(super) async fn be_short(mut self) {
        if self.begin().await && self.look().await {
            self.finish().await;
        }
    }

    async fn finish(self) {
        match self.end {
            End::Asked | End::FallsAsleep(_) => self.kill().await,
            End::Expires(deadline) => self.expire(deadline).await,
        }
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        match self.end {
            End::Asked => false,
            End::Expires(at) | End::FallsAsleep(at) => Instant::now() + DOUBT > at,
        }
    }

    /// Writes what is in it from the start. Whether it can be gone on with.
    async fn begin(&mut self) -> bool {
        self.write_blob().await && self.start_counting().await
    }

    async fn write_blob(&mut self) -> bool {
        if self.memory.files().blob.is_some() {
            return true;
        }
        let written = self.ask("write a file", || async {
            // Another file for each try: one whose answer was lost may still be written.
            let word = lot::word();
            let blob = format!("/home/user/blob-{word}");
            let script = format!("head -c {BLOB_BYTES} /dev/urandom >{blob} && sha256sum <{blob}");
            let read = self.envd.process_start(shell(script)).await?;
            let read = read.collect(OUTPUT_BYTES_MAX).await?;
            let said = String::from_utf8_lossy(&read.stdout).into_owned();
            Ok((word, said))
        });
        let Some((word, said)) = written.await else {
            return false;
        };
        let digest = said.split(' ').next().unwrap_or_default();
        self.memory.has((word, digest.to_owned()));
        true
    }

    /// Whether it can be gone on with.
    pub(super) async fn start_counting(&mut self) -> bool {
        let counter = Counter::new(lot::word());
        let started = self.ask("start a program", || async {
            let words = ["-c", COUNTER, &self.id, &counter.word];
            let command = Command {
                program: "/usr/bin/python3".into(),
                args: words.map(str::to_owned).into(),
                ..Command::default()
            };
            let mut events = self.envd.process_start(command).await?;
            // The first event says that it runs; it runs on without us.
            events.next().await.map(drop)
        });
        let started = started.await.is_some();
        self.memory.counts(counter);
        started
    }

    /// Writes a mark and reads everything back. Whether it can be gone on with.
    pub(super) async fn look(&mut self) -> bool {
        let marks = Mutex::new(Vec::new());
        let read = self.ask("look at its files", || async {
            // Another mark for each try: one whose answer was lost may be there or not.
            let mark = lot::word();
            lock(&marks).push((mark.clone(), false));
            let script = self.memory.script(&mark);
            let events = self.envd.process_start(shell(script)).await?;
            let read = events.collect(OUTPUT_BYTES_MAX).await?;
            if let Some(last) = lock(&marks).last_mut() {
                last.1 = true;
            }
            let text = String::from_utf8_lossy(&read.stdout).into_owned();
            Ok((read.end.exit_code, text))
        });
        let read = read.await;
        self.memory.wrote(&mut lock(&marks));
        let Some((code, text)) = read else {
            return false;
        };
        add(&self.world.ledger.looks);
        if let Err(why) = self.memory.judge(code, &text) {
            self.world.ledger.wrong(format!("{}: {why}", self.id));
        }
        true
    }

    pub(super) async fn kill(self) {
        self.world.stand(&self.id, Standing::Ending);
        let begun = Instant::now();
        let mut lost_answers = 0;
        loop {
            let api = &self.world.server.api;
            match tokio::time::timeout(ANSWER, api.sandbox_kill(&self.id)).await {
                Ok(Ok(true)) => break,
                // The first answer was lost on its way.
                Ok(Ok(false)) if lost_answers > 0 => break,
                Ok(Ok(false)) => {
                    let id = &self.id;
                    return self
                        .world
                        .ledger
                        .lost(format!("{id} was not there to be ended"));
                }
                Ok(Err(error)) if is_nobody_there(&error) && begun.elapsed() < PATIENCE => {
                    add(&self.world.ledger.retries);
                    lost_answers += 1;
                    tokio::time::sleep(RETRY).await;
                }
                failed => {
                    let (id, said) = (&self.id, failed.map(|other| other.map_err(|e| chain(&e))));
                    return self
                        .world
                        .ledger
                        .wrong(format!("{id} could not be ended: {said:?}"));
                }
            }
        }
        add(&self.world.ledger.killed);
        self.world.stand(&self.id, Standing::Ended(Instant::now()));
        self.must_be_gone().await;
    }

    async fn expire(self, deadline: Instant) {
        self.world.stand(&self.id, Standing::Ending);
        tokio::time::sleep_until(deadline.into()).await;
        // Later while nobody is there to end it: only answers count.
        let mut answers_too_many = 0;
        let begun = Instant::now();
        loop {
            tokio::time::sleep(GRACE / 5).await;
            match self.world.server.api.sandbox_by_id(&self.id).await {
                Ok(None) => break,
                Ok(Some(_)) => answers_too_many += 1,
                Err(error) if is_nobody_there(&error) => answers_too_many = 0,
                Err(error) => {
                    let (id, said) = (&self.id, chain(&error));
                    return self
                        .world
                        .ledger
                        .wrong(format!("{id} could not be asked for: {said}"));
                }
            }
            if answers_too_many > 5 || begun.elapsed() > PATIENCE {
                let id = &self.id;
                return self
                    .world
                    .ledger
                    .wrong(format!("{id} outlives its deadline"));
            }
        }
        add(&self.world.ledger.expired);
        self.world.stand(&self.id, Standing::Ended(Instant::now()));
    }

    async fn must_be_gone(&self) {
        let there = self.ask_api("ask for it", || {
            self.world.server.api.sandbox_by_id(&self.id)
        });
        if let Some(Some(_)) = there.await {
            let id = &self.id;
            self.world
                .ledger
                .wrong(format!("{id} has ended and is found"));
        }
    }
}

pub(super) fn shell(script: String) -> Command {
    Command {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script],
        ..Command::default()
    }
}
