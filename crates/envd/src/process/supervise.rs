//! From the start of a process to its end: output, time limit, reaping.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use envd_wire::process::process_event::EndEvent;
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use tokio::time::{Instant, sleep_until};

use super::end;
use super::live::Process;
use super::output::Output;
use super::pace::Pace;
use super::table::ProcessTable;
use crate::log::Log;

/// Runs until the process has ended, then retires it and tells its readers.
pub async fn supervise(
    table: Rc<ProcessTable>,
    log: Rc<Log>,
    process: Rc<Process>,
    outputs: Vec<Output>,
    limit: Option<Duration>,
) {
    let end = run(&process, &outputs, &table.pace, limit).await;
    // First out of the table, so that nobody finds it listed after its end was told.
    table.retire(&process, &end);
    log.process_end(
        process.pid,
        process.tag.as_deref(),
        &end,
        process.written.get(),
    );
    process.finish(end);
}

async fn run(
    process: &Process,
    outputs: &[Output],
    pace: &Pace,
    limit: Option<Duration>,
) -> EndEvent {
    let mut pumps = pin!(pump_all(process, outputs, pace));
    let mut timer = pin!(expire(limit));
    let (mut read_to_end, mut exited, mut expired) = (false, false, false);
    while !(exited && (read_to_end || process.is_hurried())) {
        tokio::select! {
            () = &mut pumps, if !read_to_end => read_to_end = true,
            ready = process.pidfd.readable(), if !exited => {
                // Readable once, for good: the child is a zombie until we reap it.
                drop(ready);
                exited = true;
            }
            () = process.hurry.notified() => {}
            () = &mut timer, if !expired => {
                expired = true;
                // Gone already is fine.
                let _ = process.signal(Signal::KILL);
                process.stop_waiting_for_output();
            }
        }
    }
    if !read_to_end {
        outputs.iter().for_each(|output| output.drain(process));
    }
    reap(process)
}

/// Stdout and stderr at the same time; a terminal is one.
async fn pump_all(process: &Process, outputs: &[Output], pace: &Pace) {
    match outputs {
        [one] => one.pump(process, pace).await,
        [one, other] => {
            tokio::join!(one.pump(process, pace), other.pump(process, pace));
        }
        _ => {}
    }
}

fn expire(limit: Option<Duration>) -> impl Future<Output = ()> {
    let at = limit.and_then(|limit| Instant::now().checked_add(limit));
    async move {
        match at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// How a process of the table ended, as soon as it did: others may hold its output longer.
pub async fn exit(process: &Process) -> EndEvent {
    loop {
        if let Some(end) = process.ended() {
            return end;
        }
        // Readable for good, once it ended.
        if process.pidfd.readable().await.is_err() {
            return end::failed("wait: the event loop is gone");
        }
        let handle = WaitId::PidFd(std::os::fd::AsFd::as_fd(process.pidfd.get_ref()));
        match waitid(handle, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(Some(status)) => return end::of_status(&status),
            // Reaped, and the end is there already.
            Err(Errno::CHILD) => match process.ended() {
                Some(end) => return end,
                None => return end::failed("wait: no status"),
            },
            Err(Errno::INTR) => {}
            Ok(None) => return end::failed("wait: no status"),
            Err(error) => return end::failed(&format!("wait: {error}")),
        }
    }
}

fn reap(process: &Process) -> EndEvent {
    loop {
        let handle = WaitId::PidFd(std::os::fd::AsFd::as_fd(process.pidfd.get_ref()));
        match waitid(handle, WaitIdOptions::EXITED) {
            Ok(Some(status)) => return end::of_status(&status),
            Err(Errno::INTR) => {}
            Ok(None) => return end::failed("wait: no status"),
            Err(error) => return end::failed(&format!("wait: {error}")),
        }
    }
}
