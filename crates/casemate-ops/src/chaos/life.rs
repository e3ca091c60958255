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
use super::memory::{COUNTER, Memory};
use super::world::{DOUBT, Standing, World, lock};

/// After its deadline, and while somebody is there to end it.
const GRACE: Duration = Duration::from_secs(5);
/// Looks at one sandbox, and the pause before each.
const LOOKS_MAX: u64 = 6;
const PAUSE_MS: std::ops::Range<u64> = 100..1200;
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// One that was acknowledged, and what it must say.
pub(super) struct Life<'a> {
    pub(super) world: &'a World,
    pub(super) id: String,
    envd: Envd,
    deadline: Option<Instant>,
    memory: Memory,
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

/// Compares the list with what is known, again and again.
pub(super) async fn lists(world: Arc<World>) {
    while !world.is_over() {
        world.compare_list().await;
        tokio::time::sleep(Duration::from_millis(lot::between(PAUSE_MS))).await;
    }
}

impl<'a> Life<'a> {
    /// `None`: what the create answered cannot be used, which is noted.
    pub(super) fn new(world: &'a World, made: &Sandbox, deadline: Option<Instant>) -> Option<Self> {
        let (server, id) = (&world.server, made.sandbox_id.clone());
        let token = made.envd_access_token.as_deref();
        match server.api.envd(&server.edge, &id, token) {
            Ok(envd) => Some(Self {
                world,
                id,
                envd,
                deadline,
                memory: Memory::default(),
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
        if !self.start_counting().await {
            return;
        }
        for _ in 0..lot::between(1..LOOKS_MAX) {
            tokio::time::sleep(Duration::from_millis(lot::between(PAUSE_MS))).await;
            if self.world.is_over() || self.is_in_doubt() {
                break;
            }
            if !self.look().await {
                return;
            }
        }
        match self.deadline {
            None => self.kill().await,
            Some(deadline) => self.expire(deadline).await,
        }
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.deadline.is_some_and(|at| Instant::now() + DOUBT > at)
    }

    /// Whether it can be gone on with.
    async fn start_counting(&self) -> bool {
        let started = self.ask("start a program", || async {
            let command = Command {
                program: "/usr/bin/python3".into(),
                args: vec!["-c".into(), COUNTER.into(), self.id.clone()],
                ..Command::default()
            };
            let mut events = self.envd.process_start(command).await?;
            // The first event says that it runs; it runs on without us.
            events.next().await.map(drop)
        });
        started.await.is_some()
    }

    /// Writes a mark and reads everything back. Whether it can be gone on with.
    async fn look(&mut self) -> bool {
        let marks = Mutex::new(Vec::new());
        let read = self.ask("look at its files", || async {
            // Another mark for each try: one whose answer was lost may be there or not.
            let mark = lot::word();
            lock(&marks).push((mark.clone(), false));
            let script = format!(
                "echo {mark} >>/home/user/marks && cat /home/user/marks && echo -- && cat /tmp/counter"
            );
            let command = Command {
                program: "/bin/sh".into(),
                args: vec!["-c".into(), script],
                ..Command::default()
            };
            let events = self.envd.process_start(command).await?;
            let read = events.collect(OUTPUT_BYTES_MAX).await?;
            if let Some(last) = lock(&marks).last_mut() {
                last.1 = true;
            }
            Ok((read.end.exit_code, String::from_utf8_lossy(&read.stdout).into_owned()))
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

    async fn kill(self) {
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
