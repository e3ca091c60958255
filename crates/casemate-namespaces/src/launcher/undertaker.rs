//! The undertaker: a child of the launcher that closes what is slow to close.
//!
//! Closing the last descriptor of a detached mount waits until every processor has noticed: up to
//! milliseconds on a busy host, twice for each sandbox. Nobody waits for the undertaker, and it
//! waits for a quiet moment: interrupting all processors would hold up the very sandbox whose
//! layers they were. It ends with the launcher.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use casemate_linux::clone::{Fork, Forked, Namespaces, SingleThreaded, exit_now, fork};
use casemate_linux::scm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long nothing may come before it is quiet: longer than a sandbox takes to serve.
const QUIET: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
/// Descriptors kept for a quiet moment; more are closed at once.
const KEPT_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Undertaker {
    socket: OwnedFd,
}

impl Undertaker {
    pub(super) fn start(proof: &SingleThreaded) -> io::Result<Self> {
        let (ours, theirs) = scm::pair()?;
        let how = Fork {
            namespaces: Namespaces::NONE,
            cgroup: None,
            sibling: false,
        };
        match fork(proof, &how)? {
            Forked::Child => {
                drop(ours);
                // Whatever it could not receive any more ends with it, and so does what it kept.
                exit_now(i32::from(bury_in_quiet(&theirs).is_err()))
            }
            Forked::Parent { .. } => {
                rustix::io::ioctl_fionbio(&ours, true)?;
                Ok(Self { socket: ours })
            }
        }
    }

    /// Has descriptors closed without waiting for it. One that is behind leaves it to the caller.
    pub(super) fn bury(&self, fds: Vec<OwnedFd>) {
        for part in fds.chunks(scm::FDS_MAX) {
            let borrowed: Vec<_> = part.iter().map(AsFd::as_fd).collect();
            // On an error the last descriptors are the ones dropped here, which is only slow.
            let _ = scm::send(&self.socket, b"x", &borrowed);
        }
    }
}

fn bury_in_quiet(socket: &OwnedFd) -> io::Result<()> {
    let mut kept = Vec::new();
    loop {
        let patience = if kept.is_empty() { None } else { Some(&QUIET) };
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], patience) {
            Ok(0) => kept.clear(),
            Ok(_) => match scm::recv(socket, &mut [0; 1])? {
                (0, _) => return Ok(()),
                (_, fds) => kept.extend(fds),
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if kept.len() > KEPT_MAX {
            kept.clear();
        }
    }
}
