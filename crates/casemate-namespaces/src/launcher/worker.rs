//! The worker: a process forked ahead of each create, which makes one sandbox and ends.
//!
//! Entering a user namespace cannot be undone, so it is not the launcher that does it; and a worker
//! that waits for its request already has been forked when the request comes. As the host's root it
//! takes what only root can give (the overlay, v1 groups, the agent's listening socket, clock
//! offsets); as the sandbox's root it makes the first process,
//! which therefore owns all its other namespaces. Then it answers the node and ends.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use casemate_failpoint::{self as failpoint, Point};
use casemate_linux::clone::{Fork, Forked, Namespaces, SingleThreaded, exit_now, fork, unshare};
use casemate_linux::exec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, clock_gettime};

use super::child::{self, Inside};
use super::message::{Order, Parts, Reply, Request};
use super::own::Own;
use super::room::Room;
use super::{answer_with, misdirected, overlay, receive};
use crate::AGENT_PORT;
use crate::step::{Step, StepError};

/// Of the first process and the agent; what the agent starts has 0. It counts only against the same
/// sandbox's processes, as its control group has its own share: however many they are, the agent
/// has the first turn at a processor. (Not at memory: amid a fork bomb it still waits for that.)
const AGENT_NICE: i32 = -20;

/// Connections that wait for the agent to accept them.
const AGENT_BACKLOG: i32 = 1024;

/// How long the launcher waits with the next fork, unless a request is there: the sandbox that has
/// just been made starts in this time, and needs the processors more.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// What a worker tells the launcher, one byte; one that tells nothing died.
const ANSWERED: u8 = b'a';
const CLOSED: u8 = b'c';

/// Serves one request after the other, each by a worker of its own, until the node closes its end.
pub(super) fn serve(
    proof: &SingleThreaded,
    room: &Room,
    socket: &OwnedFd,
    buffer: &mut [u8],
) -> Result<(), StepError> {
    let how = Fork {
        namespaces: Namespaces::NONE,
        cgroup: None,
        sibling: false,
    };
    loop {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
        match fork(proof, &how).step("fork a worker")? {
            Forked::Child => {
                drop(ours);
                // Without the launcher nobody waits for what is made here. Lost with the rights
                // that are given up later, so that it is no promise.
                let _ = set_parent_process_death_signal(Some(Signal::KILL));
                let code = match work(proof, room, socket, buffer) {
                    // Nobody is left to tell when this fails.
                    Ok(outcome) => i32::from(rustix::io::write(&theirs, &[outcome]).is_err()),
                    Err(error) => {
                        let cause = error.source.to_string();
                        eprintln!("casemate: a launcher's worker ends: {error}: {cause}");
                        1
                    }
                };
                exit_now(code)
            }
            Forked::Parent { .. } => {
                drop(theirs);
                let mut outcome = [0];
                let told = rustix::io::retry_on_intr(|| rustix::io::read(&ours, &mut outcome));
                match (told.step("hear a worker")?, outcome) {
                    (1, [ANSWERED]) => {
                        failpoint::hit(Point::CreateAnswered);
                        // Interrupted or not: it is time to go on.
                        let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&PAUSE));
                    }
                    (1, [CLOSED]) => return Ok(()),
                    // It may have taken a request with it: the node sees us end, undoes what was
                    // made and gives its order once more.
                    _ => {
                        return Err(io::Error::from(io::ErrorKind::BrokenPipe))
                            .step("hear a worker");
                    }
                }
            }
        }
    }
}

fn work(
    proof: &SingleThreaded,
    room: &Room,
    socket: &OwnedFd,
    buffer: &mut [u8],
) -> Result<u8, StepError> {
    let prepared = prepare(room);
    let Some((request, fds)) = receive::<Request>(socket, buffer)? else {
        return Ok(CLOSED);
    };
    failpoint::hit(Point::CreateReceived);
    let done = prepared.and_then(|own| match request {
        Request::Create(order) => create(proof, room, &own, &order, fds),
        Request::UserNamespaces { .. } => Err(misdirected()),
    });
    let done = done.map(|(pid, process)| (Reply::Created { pid }, vec![process]));
    answer_with(socket, done)?;
    Ok(ANSWERED)
}

/// What is the same for every sandbox, and inherited by it.
fn prepare(room: &Room) -> Result<Own, StepError> {
    exec::reset_signals();
    // Not every root may be less nice than others.
    exec::reset_scheduling(AGENT_NICE)
        .or_else(|_| exec::reset_scheduling(0))
        .step("reset the scheduling")?;
    unshare(Namespaces::TIME).step("make a time namespace")?;
    Own::mount(&room.agent, &room.machine)
}

/// Answers with the first process. What was made before an error goes with its descriptors, but
/// for the control groups, which are the node's.
fn create(
    proof: &SingleThreaded,
    room: &Room,
    own: &Own,
    order: &Order,
    fds: Vec<OwnedFd>,
) -> Result<(i32, OwnedFd), StepError> {
    let parts = Parts::from_list(fds)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        .step("receive a sandbox's parts")?;
    let group = room
        .cgroups
        .group(&order.group)
        .step("open the control groups")?;
    let root = overlay::mount(order, room.layers, parts.userns.as_fd(), &room.undertaker)?;
    failpoint::hit(Point::CreateMounted);
    let taken = room
        .machine
        .take(order)
        .step("take what a sandbox is shown")?;
    group.join_v1().step("join the control groups")?;
    enter(&parts.netns, LinkNameSpaceType::Network).step("enter the network namespace")?;
    let listener = agent_listener().step("open the agent's port")?;
    start_clocks(order.born_s).step("set the clocks")?;
    enter(&room.bare, LinkNameSpaceType::Mount).step("leave the room")?;
    enter(&parts.userns, LinkNameSpaceType::User).step("enter the user namespace")?;
    let how = Fork {
        namespaces: Namespaces::PID
            .and(Namespaces::MOUNT)
            .and(Namespaces::UTS)
            .and(Namespaces::IPC)
            .and(Namespaces::CGROUP),
        cgroup: group.unified(),
        sibling: true,
    };
    match fork(proof, &how).step("make the first process")? {
        Forked::Parent { child, pidfd } => {
            failpoint::hit(Point::CreateForked);
            Ok((child.as_raw_nonzero().get(), pidfd))
        }
        Forked::Child => {
            let inside = Inside {
                room,
                own,
                order,
                parts: &parts,
                taken: &taken,
                root: &root,
                listener: &listener,
            };
            exit_now(child::run(&inside))
        }
    }
}

fn enter(namespace: &OwnedFd, kind: LinkNameSpaceType) -> io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(kind)).map_err(Into::into)
}

/// Listening before the agent runs: a connection made meanwhile waits instead of failing.
fn agent_listener() -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(
        &socket,
        &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, AGENT_PORT),
    )?;
    listen(&socket, AGENT_BACKLOG)?;
    Ok(socket)
}

/// Uptime and the monotonic clock count from the sandbox's birth.
fn start_clocks(born_s: u64) -> io::Result<()> {
    let monotonic = clock_gettime(ClockId::Monotonic).tv_sec;
    let offsets = format!("monotonic -{monotonic} 0\nboottime -{born_s} 0\n");
    std::fs::write("/proc/self/timens_offsets", offsets)
}
