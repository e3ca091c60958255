//! The helper: a short-lived process between launcher and sandbox.
//!
//! Entering a user namespace cannot be undone, so it is not the launcher that does it. As the
//! host's root the helper takes what only root can give (v1 groups, a view of `/sys` of that
//! network, the agent's listening socket, clock offsets); as the sandbox's root it makes the first
//! process, which therefore owns all its other namespaces. Then it reports and ends.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_linux::clone::{Fork, Forked, Namespaces, SingleThreaded, exit_now, fork, unshare};
use casemate_linux::{exec, scm};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::net::{
    AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, clock_gettime};

use super::child::{self, Inside};
use super::message::{Order, Parts};
use super::room::Room;
use crate::AGENT_PORT;
use crate::cgroup::SandboxCgroup;
use crate::step::{Step, StepError};

/// Connections that wait for the agent to accept them.
const AGENT_BACKLOG: i32 = 1024;

pub(super) struct Work<'a> {
    pub(super) room: &'a Room,
    pub(super) order: &'a Order,
    pub(super) parts: &'a Parts<OwnedFd>,
    pub(super) group: &'a SandboxCgroup,
    pub(super) root: &'a OwnedFd,
}

/// What the helper tells the launcher; a pidfd comes with `Started`.
#[derive(Debug)]
pub(super) enum Report {
    Started(i32),
    Failed { step: &'static str, errno: i32 },
}

impl Report {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Started(pid) => [&[0][..], &pid.to_le_bytes()].concat(),
            // Both are the same program: the address of a literal is the same in both.
            Self::Failed { step, errno } => {
                [&[1][..], &errno.to_le_bytes(), step.as_bytes()].concat()
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let number = i32::from_le_bytes(*number);
        match kind {
            0 => Some(Self::Started(number)),
            _ => {
                let step = std::str::from_utf8(rest).ok()?.to_owned();
                // Failures are rare and the launcher is short of lifetimes: the text is kept.
                Some(Self::Failed {
                    step: Box::leak(step.into_boxed_str()),
                    errno: number,
                })
            }
        }
    }
}

/// Runs in the helper; answers with its exit code.
pub(super) fn run(proof: &SingleThreaded, work: &Work<'_>, report: BorrowedFd<'_>) -> i32 {
    let said = match start(proof, work) {
        Ok((pid, pidfd)) => scm::send(report, &Report::Started(pid).encode(), &[pidfd.as_fd()]),
        Err(error) => {
            let errno = error.source.raw_os_error().unwrap_or(libc::EIO);
            scm::send(
                report,
                &Report::Failed {
                    step: error.step,
                    errno,
                }
                .encode(),
                &[],
            )
        }
    };
    i32::from(said.is_err())
}

fn start(proof: &SingleThreaded, work: &Work<'_>) -> Result<(i32, OwnedFd), StepError> {
    exec::reset_scheduling().step("reset the scheduling")?;
    work.group.join_v1().step("join the control groups")?;
    enter(&work.parts.netns, LinkNameSpaceType::Network).step("enter the network namespace")?;
    let sys = sysfs().step("make /sys")?;
    let listener = agent_listener().step("open the agent's port")?;
    unshare(Namespaces::TIME).step("make a time namespace")?;
    start_clocks_at_zero().step("set the clocks")?;
    enter(&work.parts.userns, LinkNameSpaceType::User).step("enter the user namespace")?;
    let how = Fork {
        namespaces: Namespaces::PID
            .and(Namespaces::MOUNT)
            .and(Namespaces::UTS)
            .and(Namespaces::IPC)
            .and(Namespaces::CGROUP),
        cgroup: work.group.unified(),
        sibling: true,
    };
    match fork(proof, &how).step("make the first process")? {
        Forked::Parent { child, pidfd } => Ok((child.as_raw_nonzero().get(), pidfd)),
        Forked::Child => {
            let inside = Inside {
                room: work.room,
                order: work.order,
                parts: work.parts,
                root: work.root,
                sys: &sys,
                listener: &listener,
            };
            exit_now(child::run(&inside))
        }
    }
}

fn enter(namespace: &OwnedFd, kind: LinkNameSpaceType) -> io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(kind)).map_err(Into::into)
}

/// A detached `/sys` that shows this network namespace's interfaces.
fn sysfs() -> io::Result<OwnedFd> {
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
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
fn start_clocks_at_zero() -> io::Result<()> {
    let monotonic = clock_gettime(ClockId::Monotonic).tv_sec;
    let boot = clock_gettime(ClockId::Boottime).tv_sec;
    let offsets = format!("monotonic -{monotonic} 0\nboottime -{boot} 0\n");
    std::fs::write("/proc/self/timens_offsets", offsets)
}
