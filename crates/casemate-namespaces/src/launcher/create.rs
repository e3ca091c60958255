//! Making one sandbox: the launcher's own part, from the request to the running first process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use casemate_linux::clone::{Fork, Forked, Namespaces, SingleThreaded, exit_now, fork};
use casemate_linux::scm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::helper::{self, Report};
use super::message::{Order, Parts};
use super::overlay;
use super::room::Room;
use crate::step::{Step, StepError};

/// A helper that says nothing for so long is stuck in the kernel; the node is told.
const HELPER_SECONDS_MAX: i64 = 5;

/// Answers with the first process; what was made before an error is left to the node, which
/// removes control groups by name. Everything else goes with its descriptors.
pub(super) fn create(
    proof: &SingleThreaded,
    room: &Room,
    order: &Order,
    fds: Vec<OwnedFd>,
) -> Result<(i32, OwnedFd), StepError> {
    let parts = Parts::from_list(fds)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        .step("receive a sandbox's parts")?;
    let group = room.cgroups.create(&order.group, &order.limits)?;
    let root = overlay::mount(order, room.layers, parts.userns.as_fd(), &room.undertaker)?;
    let (ours, theirs) = scm::pair().step("make a socket pair")?;
    let how = Fork {
        namespaces: Namespaces::NONE,
        cgroup: None,
        sibling: false,
    };
    match fork(proof, &how).step("fork a helper")? {
        Forked::Child => {
            drop(ours);
            let work = helper::Work {
                room,
                order,
                parts: &parts,
                group: &group,
                root: &root,
            };
            exit_now(helper::run(proof, &work, theirs.as_fd()));
        }
        Forked::Parent { .. } => {
            // Without our copies their ends close with the last process that has them.
            drop((theirs, parts));
            await_report(&ours)
        }
    }
}

fn await_report(socket: &OwnedFd) -> Result<(i32, OwnedFd), StepError> {
    let deadline = Timespec {
        tv_sec: HELPER_SECONDS_MAX,
        tv_nsec: 0,
    };
    let mut waiting = [PollFd::new(socket, PollFlags::IN)];
    if poll(&mut waiting, Some(&deadline)).step("wait for the helper")? == 0 {
        return Err(io::Error::from(io::ErrorKind::TimedOut)).step("wait for the helper");
    }
    let mut buffer = [0; 512];
    let (length, fds) = scm::recv(socket, &mut buffer).step("hear the helper")?;
    match (Report::decode(&buffer[..length]), fds.into_iter().next()) {
        (Some(Report::Started(pid)), Some(pidfd)) => Ok((pid, pidfd)),
        (Some(Report::Failed { step, errno }), _) => Err(StepError {
            step,
            source: io::Error::from_raw_os_error(errno),
        }),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)).step("hear the helper"),
    }
}
