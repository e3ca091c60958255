//! Trying the ready command.

use std::cell::RefCell;
use std::rc::Rc;

use rustix::process::Signal;
use tokio::time::sleep;

use super::context::Context;
use super::tail::Tail;
use crate::guest::Guest;
use crate::limits::{READY_PAUSE, READY_PAUSE_LONGEST};
use crate::process::launch::launch_unlisted;
use crate::process::live::Process;

/// Returns once `command` ended with 0. `wrote` has what the last try said.
///
/// # Cancel safety
/// A try that runs is killed when this is dropped.
pub async fn until_ready(guest: &Guest, context: &Context, command: &str, wrote: &RefCell<Tail>) {
    let mut pause = READY_PAUSE;
    while !attempt(guest, context, command, wrote).await {
        sleep(pause).await;
        pause = (pause * 2).min(READY_PAUSE_LONGEST);
    }
}

async fn attempt(guest: &Guest, context: &Context, command: &str, wrote: &RefCell<Tail>) -> bool {
    wrote.borrow_mut().clear();
    let launched = launch_unlisted(guest, &context.user, context.request(command));
    let (process, mut queue) = match launched {
        Ok(launched) => launched,
        // The sandbox may be at its process limit for the moment.
        Err(error) => {
            wrote.borrow_mut().push(error.message.as_bytes());
            return false;
        }
    };
    let running = Running(process);
    // What it leaves running in the background is not waited for.
    running.0.stop_waiting_for_output();
    while let Some(chunk) = queue.recv().await {
        wrote.borrow_mut().push(&chunk.bytes);
    }
    let end = running.0.ended();
    end.is_some_and(|end| end.exited && end.exit_code == 0)
}

/// Killed when it is dropped, if it runs still.
struct Running(Rc<Process>);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.ended().is_none() {
            // Gone already is fine.
            let _ = self.0.signal(Signal::KILL);
        }
    }
}
