//! The launcher: a single-threaded root process that turns claimed parts into a running sandbox.
//!
//! It exists because `setns` into a user namespace, `fork` without `exec` and a small mount table
//! are all impossible in the node, which has threads and the host's mounts. It is the node's own
//! program, executed again; [`run`] is what that program's `main` calls.
//!
//! It answers one request after the other on its socket and ends when the socket does. For creates
//! it forks a [`worker`] ahead of each request, which receives and answers it; for user namespaces
//! it forks a maker behind the request. Sandboxes are its children only so that somebody reaps them:
//! when it ends they go on under init. It keeps no state about them; whatever fails half-way is
//! undone by the node, which knows all names. It must not know the pool, slots, leases or the port.

mod bare;
mod child;
mod filter;
mod machine;
pub(crate) mod message;
mod overlay;
mod own;
mod room;
mod undertaker;
mod userns;
mod worker;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use casemate_linux::clone::SingleThreaded;
use casemate_linux::{exec, scm};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(crate) use userns::create as user_namespace;

use message::{Refusal, Reply, Request, Setup, Use};

use crate::step::{Step, StepError};

/// Where the node places the socket.
pub const SOCKET_FD: i32 = 3;

/// Descriptors below this are places in the first process of a sandbox; the launcher keeps its own
/// above, so that none is in the way.
const FIRST_FREE_FD: i32 = 16;

/// Open files of one process: what it starts with, and how far it may raise it.
const FILES_SOFT: u64 = 65_536;
const FILES_HARD: u64 = 1_048_576;

/// Longest request: some paths and numbers.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Serves until the node closes its end. The caller's `main` returns the code to the system.
pub fn run() -> i32 {
    let Some(socket) = exec::inherited_fd(SOCKET_FD) else {
        eprintln!("casemate: this command is for casemate's own use");
        return 2;
    };
    match serve(socket) {
        Ok(()) => 0,
        Err(error) => {
            let cause = error.source.to_string();
            eprintln!("casemate: launcher ends: {error}: {cause}");
            1
        }
    }
}

fn serve(socket: OwnedFd) -> Result<(), StepError> {
    let proof = SingleThreaded::prove().step("start a launcher")?;
    let socket =
        exec::dup_above(socket.as_fd(), FIRST_FREE_FD).step("move the launcher's socket")?;
    let _places = occupy_low_fds().step("reserve descriptors")?;
    exec::reap_children_automatically();
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    let Some((setup, _)) = receive::<Setup>(&socket, &mut buffer)? else {
        return Ok(());
    };
    let limited = set_inherited_limits().step("set the limits that sandboxes inherit");
    let room = match limited.and_then(|()| room::Room::build(&proof, &setup)) {
        Ok(room) => {
            answer(&socket, &Reply::Done, &[])?;
            room
        }
        Err(error) => return answer(&socket, &Reply::Refused(Refusal::from(&error)), &[]),
    };
    match setup.r#use {
        Use::Creates => worker::serve(&proof, &room, &socket, &mut buffer),
        Use::Preparations => loop {
            let Some((request, _)) = receive::<Request>(&socket, &mut buffer)? else {
                return Ok(());
            };
            match request {
                Request::UserNamespaces { first_ids } => {
                    userns::serve(&proof, &socket, &first_ids)?;
                }
                Request::Create(_) => answer_with(&socket, Err(misdirected()))?,
            }
        },
    }
}

fn misdirected() -> StepError {
    StepError {
        step: "serve a request for another launcher",
        source: io::ErrorKind::Unsupported.into(),
    }
}

fn answer_with(
    socket: &OwnedFd,
    done: Result<(Reply, Vec<OwnedFd>), StepError>,
) -> Result<(), StepError> {
    match done {
        Ok((reply, fds)) => answer(socket, &reply, &fds),
        Err(error) => answer(socket, &Reply::Refused(Refusal::from(&error)), &[]),
    }
}

fn receive<T: serde::de::DeserializeOwned>(
    socket: &OwnedFd,
    buffer: &mut [u8],
) -> Result<Option<(T, Vec<OwnedFd>)>, StepError> {
    let (length, fds) = match scm::recv(socket, buffer) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        other => other.step("receive a request")?,
    };
    if length == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[..length]).step("read a request")?;
    Ok(Some((message, fds)))
}

fn answer(socket: &OwnedFd, reply: &Reply, fds: &[OwnedFd]) -> Result<(), StepError> {
    let text = serde_json::to_vec(reply).step("write an answer")?;
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    match scm::send(socket, &text, &fds) {
        // The node is gone; the next receive says so too.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.step("send an answer"),
    }
}

/// What sandboxes inherit and cannot change: only the host's root may raise them.
fn set_inherited_limits() -> io::Result<()> {
    // The service may be protected from the kernel's memory killer; sandboxes must not be.
    std::fs::write("/proc/self/oom_score_adj", "0")?;
    let raised = Rlimit {
        current: Some(FILES_SOFT),
        maximum: Some(FILES_HARD),
    };
    if setrlimit(Resource::Nofile, raised).is_err() {
        // Not every root may raise limits; then what we have is what sandboxes get.
        let hard = getrlimit(Resource::Nofile).maximum;
        let soft = hard.map_or(FILES_SOFT, |hard| hard.min(FILES_SOFT));
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(soft),
                maximum: hard,
            },
        )?;
    }
    // One byte, and not none: the host's handler of core dumps, which would run as the host's
    // root on what a sandbox gives it, ignores the limit except for this value.
    Ok(setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(1),
            maximum: Some(1),
        },
    )?)
}

fn occupy_low_fds() -> io::Result<Vec<OwnedFd>> {
    let mut held = Vec::new();
    loop {
        let fd = OwnedFd::from(std::fs::File::open("/dev/null")?);
        if std::os::fd::AsRawFd::as_raw_fd(&fd) >= FIRST_FREE_FD {
            return Ok(held);
        }
        held.push(fd);
    }
}
