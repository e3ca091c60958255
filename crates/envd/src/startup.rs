//! What a template runs in each of its sandboxes before that is given away: a start command, which
//! goes on as an ordinary process, and a ready command, which is tried until it ends with 0.
//!
//! ```text
//!   none            starting ──► ready
//!                       └────────┴───► failed
//! ```
//! A sandbox may wait for long before it is given away: one whose start command ends badly meanwhile
//! has failed after all. Only the first server of a sandbox's life runs the commands; one that
//! is started again after a crash knows the outcome from a [`Record`], and without one it cannot
//! tell any more what the start command does, so that the start has failed.

mod attempt;
mod context;
pub mod route;
mod tail;

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config;
use crate::guest::Guest;
use crate::process::environment::Whose;
use crate::process::launch::launch;
use crate::process::live::Process;
use crate::process::supervise::exit;
use crate::record::Record;
use attempt::until_ready;
use context::Context;
use tail::Tail;

/// Where the start stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// The template starts nothing.
    None,
    Starting,
    Ready,
    Failed {
        message: String,
        /// The end of what the command wrote that is to blame.
        output: String,
    },
}

pub struct Startup {
    state: watch::Sender<State>,
}

impl Default for Startup {
    fn default() -> Self {
        Self {
            state: watch::Sender::new(State::None),
        }
    }
}

impl Startup {
    /// What comes after `known`, or what there is when `patience` is over.
    pub async fn after(&self, known: &State, patience: Duration) -> State {
        let mut seen = self.state.subscribe();
        let another = seen.wait_for(|state| state != known);
        // The sender lives as long as we do, so only the time can be over.
        drop(timeout(patience, another).await);
        self.state.borrow().clone()
    }

    fn settle(&self, state: State) {
        self.state.send_replace(state);
    }
}

/// Begins what `wanted` says, or takes over what the server before came to. It goes on by itself.
pub fn begin(
    guest: &Rc<Guest>,
    wanted: config::Startup,
    is_first: bool,
    record: Option<Record>,
    patience: Duration,
) {
    if !is_first {
        let known = record.and_then(|record| record.read());
        guest.startup.settle(known.unwrap_or_else(|| State::Failed {
            message: "the agent was started again before the template was ready".to_owned(),
            output: String::new(),
        }));
        return;
    }
    guest.startup.settle(State::Starting);
    let guest = Rc::clone(guest);
    tokio::task::spawn_local(async move {
        let settle = |outcome| {
            if let Some(record) = &record {
                record.write(&outcome);
            }
            guest.startup.settle(outcome);
        };
        let mut process = None;
        let outcome = run(&guest, &wanted, patience, &mut process).await;
        let is_ready = outcome == State::Ready;
        settle(outcome);
        if let Some(process) = process.filter(|_| is_ready) {
            let end = exit(&process).await;
            if !(end.exited && end.exit_code == 0) {
                settle(start_failed(&end.status, ""));
            }
        }
    });
}

/// `process` is the start command's.
async fn run(
    guest: &Guest,
    wanted: &config::Startup,
    patience: Duration,
    process: &mut Option<Rc<Process>>,
) -> State {
    let context = match Context::find(&wanted.context) {
        Ok(context) => context,
        Err(message) => {
            let output = String::new();
            return State::Failed { message, output };
        }
    };
    let (start_wrote, ready_wrote) = (RefCell::new(Tail::default()), RefCell::new(Tail::default()));
    let started = match &wanted.start {
        None => None,
        Some(command) => match launch(
            guest,
            &context.user,
            Whose::Template,
            context.request(command),
            None,
        ) {
            Ok(started) => Some(started),
            Err(error) => return start_failed(&error.message, ""),
        },
    };
    *process = started.as_ref().map(|(process, _)| Rc::clone(process));
    let start_ends_badly = async {
        let Some((process, mut queue)) = started else {
            return std::future::pending().await;
        };
        let reading = async {
            while let Some(chunk) = queue.recv().await {
                start_wrote.borrow_mut().push(&chunk.bytes);
            }
        };
        let (mut reading, mut ended) = (pin!(reading), pin!(exit(&process)));
        let mut read_to_end = false;
        let end = loop {
            tokio::select! {
                end = &mut ended => break end,
                () = &mut reading, if !read_to_end => read_to_end = true,
            }
        };
        if end.exited && end.exit_code == 0 {
            if !read_to_end {
                // What it left in the background must not wait for us.
                reading.await;
            }
            return std::future::pending().await;
        }
        if !read_to_end {
            // Others may hold its output for ever.
            drop(timeout(LAST_WORDS, reading).await);
        }
        end.status
    };
    tokio::select! {
        biased;
        status = start_ends_badly => start_failed(&status, &start_wrote.borrow().text()),
        () = until_ready(guest, &context, &wanted.ready, &ready_wrote) => State::Ready,
        () = spent(patience) => {
            let seconds = patience.as_secs();
            let after = format!("{}m{}s", seconds / 60, seconds % 60);
            let said = ready_wrote.borrow().text();
            State::Failed {
                message: format!("ready command failed: ready command timed out after {after}"),
                output: if said.is_empty() { start_wrote.borrow().text() } else { said },
            }
        }
    }
}

/// For what a start command wrote just before its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

fn start_failed(status: &str, wrote: &str) -> State {
    State::Failed {
        message: format!("start command failed: error running start command: {status}"),
        output: wrote.to_owned(),
    }
}

/// Waits for `patience`, in so many steps that a sandbox which was frozen meanwhile loses one of
/// them and not all.
async fn spent(patience: Duration) {
    const STEPS: u32 = 600;
    for _ in 0..STEPS {
        sleep(patience / STEPS).await;
    }
}

#[cfg(test)]
mod tests;
