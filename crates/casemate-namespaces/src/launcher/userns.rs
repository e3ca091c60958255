//! User namespaces ahead of need: a range of the host's ids, and none below it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use casemate_linux::clone::{Fork, Forked, Namespaces, SingleThreaded, exit_now, fork};
use casemate_linux::creds::EffectiveUser;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::answer_with;
use super::message::Reply;
use crate::IDS_PER_SLOT;
use crate::step::{Step, StepError};

/// Answers a request for many, by a process with a `/proc` of its own. The kernel keeps the name of
/// `/proc/sys/user/max_user_namespaces` once for each user namespace that there is, side by side in
/// one `/proc`, and looks them through one after the other: half a millisecond for each slot beside
/// a thousand sandboxes.
pub(super) fn serve(
    proof: &SingleThreaded,
    socket: &OwnedFd,
    first_ids: &[u32],
) -> Result<(), StepError> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let how = Fork {
        namespaces: Namespaces::MOUNT.and(Namespaces::PID),
        cgroup: None,
        sibling: false,
    };
    match fork(proof, &how).step("fork a maker of user namespaces")? {
        Forked::Child => {
            drop(ours);
            // Lost with the changes of its user below, so that it is no promise.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let own_proc = mount("proc", "/proc", "proc", safe, None);
            let made = own_proc.step("mount a /proc of its own").and_then(|()| {
                let made = first_ids.iter().map(|first| create(proof, *first));
                Ok((Reply::Done, made.collect::<Result<_, _>>()?))
            });
            let answered =
                answer_with(socket, made).is_ok() && File::from(theirs).write_all(b"d").is_ok();
            exit_now(i32::from(!answered))
        }
        Forked::Parent { .. } => {
            drop(theirs);
            // One that died may have left the node without an answer: it sees us end.
            let answered = File::from(ours).read_exact(&mut [0]);
            answered.step("hear a maker of user namespaces")
        }
    }
}

/// A namespace in which ids 0 to 65535 are the host's from `first_id` on, kept alive by its
/// descriptor alone. Nobody in it can make user namespaces: each would give back all capabilities.
pub(crate) fn create(proof: &SingleThreaded, first_id: u32) -> Result<OwnedFd, StepError> {
    let (go_in, go_out) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let (done_in, done_out) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let how = Fork {
        namespaces: Namespaces::USER,
        cgroup: None,
        sibling: false,
    };
    // The namespace's maker is whom the kernel counts its watches, signals and queues against:
    // were that root, one sandbox could use up those of all others and of the host.
    let owner = EffectiveUser::set(first_id).step("act as the owner of a user namespace")?;
    match fork(proof, &how).step("make a user namespace")? {
        Forked::Child => {
            drop((go_out, done_in));
            let failed = keep(go_in).err().map(|error| error.raw_os_error());
            let errno = failed.map_or(0, |errno| errno.unwrap_or(Errno::IO.raw_os_error()));
            let told = rustix::io::write(done_out.as_fd(), &errno.to_ne_bytes());
            exit_now(i32::from(errno != 0 || told.is_err()))
        }
        Forked::Parent { child, .. } => {
            drop((owner, go_in, done_out));
            let of = |name: &str| format!("/proc/{}/{name}", child.as_raw_nonzero());
            let map = format!("0 {first_id} {IDS_PER_SLOT}\n");
            std::fs::write(of("uid_map"), &map).step("map user ids")?;
            std::fs::write(of("gid_map"), &map).step("map group ids")?;
            let namespace = File::open(of("ns/user")).step("hold a user namespace")?;
            File::from(go_out)
                .write_all(b"g")
                .step("release a namespace's keeper")?;
            let mut errno = [0; size_of::<i32>()];
            let forbidden = File::from(done_in).read_exact(&mut errno);
            let forbidden = forbidden.and_then(|()| match i32::from_ne_bytes(errno) {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            });
            forbidden.step("forbid nested user namespaces")?;
            Ok(namespace.into())
        }
    }
}

/// The first process of the namespace; it ends with its parent's interest.
fn keep(go: OwnedFd) -> io::Result<()> {
    File::from(go).read_exact(&mut [0])?;
    std::fs::write("/proc/sys/user/max_user_namespaces", "0")
}
