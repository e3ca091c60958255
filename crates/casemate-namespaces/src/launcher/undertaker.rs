//! The undertaker: a child of the launcher that closes what is slow to close.
//!
//! Closing the last descriptor of a detached mount waits until every processor has noticed: up to
//! milliseconds on a busy host, twice for each sandbox. Nobody waits for the undertaker. It ends
//! with the launcher.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use casemate_linux::clone::{Fork, Forked, Namespaces, SingleThreaded, exit_now, fork};
use casemate_linux::scm;

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
                // What is received is closed by being dropped.
                while matches!(scm::recv(&theirs, &mut [0; 1]), Ok((1.., _))) {}
                exit_now(0)
            }
            Forked::Parent { .. } => {
                rustix::io::ioctl_fionbio(&ours, true)?;
                Ok(Self { socket: ours })
            }
        }
    }

    /// Closes descriptors without waiting for it. One that is behind leaves it to the caller.
    pub(super) fn bury(&self, fds: Vec<OwnedFd>) {
        for part in fds.chunks(scm::FDS_MAX) {
            let borrowed: Vec<_> = part.iter().map(AsFd::as_fd).collect();
            // On an error the last descriptors are the ones dropped here, which is only slow.
            let _ = scm::send(&self.socket, b"x", &borrowed);
        }
    }
}
