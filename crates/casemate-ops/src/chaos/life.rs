//! The load: sandboxes that know what their files and their memory must say.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use casemate_client::api::{NewSandbox, Sandbox, SandboxFilter};
use casemate_client::envd::process::Command;
use casemate_client::{ApiError, Envd, EnvdError, RpcCode};

use super::error::ChaosError;
use super::ledger::{Ledger, add};
use super::lot;
use super::platform::{Platform, Server};

/// A call that fails is made again for this long: a start of the platform takes less.
const PATIENCE: Duration = Duration::from_secs(40);
const RETRY: Duration = Duration::from_millis(100);
/// One try. Longer is a hang.
const ANSWER: Duration = Duration::from_secs(20);
/// Of sandboxes that their client ends.
const LONG: Duration = Duration::from_secs(3600);
/// Of those that end by their deadline, in seconds.
const SHORT_SECONDS: std::ops::Range<u64> = 3..7;
/// One in so many ends by its deadline.
const SHORT_ONE_IN: usize = 3;
/// So close to its deadline nobody can say whether a sandbox runs.
const DOUBT: Duration = Duration::from_millis(1500);
/// After its deadline, and while somebody is there to end it.
const GRACE: Duration = Duration::from_secs(5);
/// Looks at one sandbox, and the pause before each.
const LOOKS_MAX: u64 = 6;
const PAUSE_MS: std::ops::Range<u64> = 100..1200;
/// Longest time in which the counting program must have counted on.
const COUNTS_WITHIN: Duration = Duration::from_secs(8);
const ROUTING_ERROR: &str = "Unexpected error when routing request";
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// Counts, and says with every number what its memory holds. Started twice it runs once: the
/// answer to the first start may have been lost.
const COUNTER: &str = r#"
import hashlib, os, sys, time
try:
    os.close(os.open("/tmp/counter.lock", os.O_CREAT | os.O_EXCL))
except FileExistsError:
    sys.exit(0)
memory = bytearray(hashlib.shake_256(sys.argv[1].encode()).digest(64 << 10))
n = 0
with open("/tmp/counter", "a") as file:
    while True:
        file.write(f"{n} {hashlib.sha256(memory).hexdigest()}\n")
        file.flush()
        n += 1
        time.sleep(0.2)
"#;

pub(super) struct World {
    server: Server,
    ledger: Arc<Ledger>,
    over: AtomicBool,
    known: Mutex<HashMap<String, Standing>>,
}

/// What the list must say of an acknowledged sandbox.
#[derive(Debug, Clone, Copy)]
enum Standing {
    /// It must be there until then, where it has a deadline.
    Runs(Option<Instant>),
    /// Its end was asked for.
    Ending,
    /// It must not be there.
    Ended(Instant),
}

/// One that was acknowledged, and what it must say.
struct Life<'a> {
    world: &'a World,
    id: String,
    envd: Envd,
    deadline: Option<Instant>,
    /// Marks that were written, and whether that was acknowledged.
    marks: Vec<(String, bool)>,
    digest: Option<String>,
    /// The last number, and when it was read.
    count: Option<(u64, Instant)>,
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

impl World {
    pub(super) fn new(server: Server, ledger: Arc<Ledger>) -> Self {
        Self {
            server,
            ledger,
            over: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Standing>> {
        lock(&self.known)
    }

    fn stand(&self, id: &str, standing: Standing) {
        self.known().insert(id.to_owned(), standing);
    }

    /// Makes one. A create is not made again on its own account: it may have happened.
    async fn create(&self) -> Option<Life<'_>> {
        let short = lot::index(SHORT_ONE_IN) == 0;
        let timeout = match short {
            true => Duration::from_secs(lot::between(SHORT_SECONDS)),
            false => LONG,
        };
        let new = NewSandbox {
            template: "base".into(),
            timeout: Some(timeout),
            ..NewSandbox::default()
        };
        let begun = Instant::now();
        match tokio::time::timeout(ANSWER, self.server.api.sandbox_create(&new)).await {
            Ok(Ok(made)) => {
                add(&self.ledger.created);
                // It may have begun to count at any moment of the call.
                let deadline = short.then(|| begun + timeout);
                self.stand(&made.sandbox_id, Standing::Runs(deadline));
                self.life(made, deadline)
            }
            Ok(Err(error)) if is_nobody_there(&error) => {
                add(&self.ledger.unanswered);
                None
            }
            Ok(Err(error)) => {
                self.ledger
                    .wrong(format!("a create was refused: {}", chain(&error)));
                None
            }
            Err(_) => {
                self.ledger
                    .wrong(format!("a create had no answer within {ANSWER:?}"));
                None
            }
        }
    }

    fn life(&self, made: Sandbox, deadline: Option<Instant>) -> Option<Life<'_>> {
        let token = made.envd_access_token.as_deref();
        let envd = self
            .server
            .api
            .envd(&self.server.edge, &made.sandbox_id, token);
        match envd {
            Ok(envd) => Some(Life {
                world: self,
                id: made.sandbox_id,
                envd,
                deadline,
                marks: Vec::new(),
                digest: None,
                count: None,
            }),
            Err(error) => {
                self.ledger
                    .wrong(format!("a create answered rubbish: {}", chain(&error)));
                None
            }
        }
    }

    async fn compare_list(&self) {
        let before = self.known().clone();
        let begun = Instant::now();
        let filter = SandboxFilter::default();
        let answered = tokio::time::timeout(ANSWER, self.server.api.sandbox_list(&filter)).await;
        let listed = match answered {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) if is_nobody_there(&error) => return add(&self.ledger.retries),
            Ok(Err(error)) => {
                let said = chain(&error);
                return self.ledger.wrong(format!("the list was refused: {said}"));
            }
            Err(_) => {
                return self
                    .ledger
                    .wrong(format!("the list had no answer within {ANSWER:?}"));
            }
        };
        add(&self.ledger.lists);
        let listed: Vec<_> = listed.into_iter().map(|one| one.sandbox_id).collect();
        let after = self.known().clone();
        for (id, standing) in &before {
            let is_listed = listed.contains(id);
            match (standing, after.get(id)) {
                // The same before and after the call, so also during it.
                (Standing::Runs(deadline), Some(Standing::Runs(_)))
                    if !is_listed && deadline.is_none_or(|at| Instant::now() + DOUBT < at) =>
                {
                    self.ledger.lost(format!("{id} runs and is not listed"));
                }
                (Standing::Ended(at), _) if is_listed && *at < begun => {
                    self.ledger.wrong(format!("{id} has ended and is listed"));
                }
                _ => {}
            }
        }
    }

    /// After the load: only sandboxes may be there whose create was never answered. They are ended,
    /// and then nothing is.
    pub(super) async fn last_look(&self, platform: &Platform) -> Result<(), ChaosError> {
        let filter = SandboxFilter::default();
        let api = &self.server.api;
        for left in api
            .sandbox_list(&filter)
            .await
            .map_err(ChaosError::LastLook)?
        {
            let id = left.sandbox_id;
            if self.known().contains_key(&id) {
                self.ledger
                    .wrong(format!("{id} has ended and is listed at the end"));
            }
            api.sandbox_kill(&id).await.map_err(ChaosError::LastLook)?;
        }
        // Those of creates that were cut off go by themselves, soon.
        let deadline = Instant::now() + PATIENCE;
        while platform.journalled()? > 0 {
            if Instant::now() > deadline {
                let left = platform.journalled()?;
                self.ledger
                    .wrong(format!("{left} sandboxes run at the end that nobody lists"));
                return Ok(());
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
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

    fn is_in_doubt(&self) -> bool {
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
        self.marks.append(&mut lock(&marks));
        let Some((code, text)) = read else {
            return false;
        };
        add(&self.world.ledger.looks);
        if let Err(why) = self.judge(code, &text) {
            self.world.ledger.wrong(format!("{}: {why}", self.id));
        }
        true
    }

    fn judge(&mut self, code: i32, text: &str) -> Result<(), String> {
        let Some((marks, count)) = text.split_once("--\n") else {
            // The counting program may need a moment before it opens its file.
            let begins = code != 0 && self.count.is_none();
            return if begins {
                Ok(())
            } else {
                Err(format!("status {code}, read {text:?}"))
            };
        };
        let mut found = marks.lines().peekable();
        for (mark, acknowledged) in &self.marks {
            if found.peek() == Some(&mark.as_str()) {
                found.next();
            } else if *acknowledged {
                return Err(format!("its file lacks {mark}"));
            }
        }
        if let Some(more) = found.next() {
            return Err(format!(
                "its file has {more:?}, which nobody wrote, or wrote once"
            ));
        }
        let mut last = None;
        for (n, line) in count.lines().enumerate() {
            let Some((number, digest)) = line.split_once(' ') else {
                return Err(format!("its counter says {line:?}"));
            };
            if number.parse() != Ok(n) {
                return Err(format!("its counter says {number} after {n} numbers"));
            }
            let first = self.digest.get_or_insert_with(|| digest.to_owned());
            if first != digest {
                return Err(format!("its memory has changed at {number}"));
            }
            last = Some(n as u64);
        }
        let Some(last) = last else {
            return Ok(());
        };
        let now = Instant::now();
        if let Some((before, at)) = self.count {
            let stands = last == before && now.duration_since(at) > COUNTS_WITHIN;
            if last < before || stands {
                return Err(format!("its counter went from {before} to {last}"));
            }
            if last == before {
                return Ok(());
            }
        }
        self.count = Some((last, now));
        Ok(())
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

    /// Asks the agent until there is an answer. `None`: there was none, or a wrong one, which is
    /// noted.
    async fn ask<T, F>(&self, what: &str, call: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, EnvdError>>,
    {
        let begun = Instant::now();
        loop {
            let failed = match tokio::time::timeout(ANSWER, call()).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => error,
                Err(_) => {
                    let id = &self.id;
                    let sentence = format!("{id}: could not {what} within {ANSWER:?}");
                    self.world.ledger.wrong(sentence);
                    return None;
                }
            };
            if self.is_in_doubt() {
                // It may have ended in time. What is known of it then comes from the list.
                return None;
            }
            let id = &self.id;
            match &failed {
                EnvdError::NotRunning { message } => {
                    let sentence = format!("{id}: could not {what}: {message}");
                    self.world.ledger.lost(sentence);
                    return None;
                }
                error if is_cut_off(error) && begun.elapsed() < PATIENCE => {
                    add(&self.world.ledger.retries);
                    tokio::time::sleep(RETRY).await;
                }
                error => {
                    let sentence = format!("{id}: could not {what}: {}", chain(error));
                    self.world.ledger.wrong(sentence);
                    return None;
                }
            }
        }
    }

    async fn ask_api<T, F>(&self, what: &str, call: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let begun = Instant::now();
        loop {
            match tokio::time::timeout(ANSWER, call()).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) if is_nobody_there(&error) && begun.elapsed() < PATIENCE => {
                    add(&self.world.ledger.retries);
                    tokio::time::sleep(RETRY).await;
                }
                failed => {
                    let said = failed.map(|other| other.map(drop).map_err(|e| chain(&e)));
                    let id = &self.id;
                    self.world
                        .ledger
                        .wrong(format!("{id}: could not {what}: {said:?}"));
                    return None;
                }
            }
        }
    }
}

/// No answer, one that broke off, or one that says to come again: no word was broken.
fn is_nobody_there(error: &ApiError) -> bool {
    match error {
        ApiError::Http(_) => true,
        ApiError::Refused { status, .. } => status.is_server_error() || *status == 429,
        ApiError::Unreadable { .. } | ApiError::TooManyPages { .. } => false,
    }
}

/// The same of an agent behind the edge.
fn is_cut_off(error: &EnvdError) -> bool {
    match error {
        EnvdError::Http(_) | EnvdError::Stream { .. } => true,
        // The edge's word while the node is gone.
        EnvdError::Refused { message, .. } if message.starts_with(ROUTING_ERROR) => true,
        EnvdError::Refused { code, .. } => {
            matches!(
                code,
                RpcCode::Unavailable | RpcCode::Unknown | RpcCode::Aborted
            )
        }
        EnvdError::NotRunning { .. }
        | EnvdError::PortClosed { .. }
        | EnvdError::Unreadable { .. }
        | EnvdError::Unwritable { .. } => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
