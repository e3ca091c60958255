//! User namespaces ahead of need: a range of the host's ids, and none below it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use casemate_linux::clone::{Fork, Forked, Namespaces, SingleThreaded, exit_now, fork};
use casemate_linux::creds::EffectiveUser;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::IDS_PER_SLOT;
use crate::step::{Step, StepError};

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
            exit_now(i32::from(keep(go_in, done_out).is_err()))
        }
        Forked::Parent { child, .. } => {
            drop((owner, go_in, done_out));
            let of = |name: &str| format!("/proc/{}/{name}", child.as_raw_nonzero());
            let map = format!("0 {first_id} {IDS_PER_SLOT}\n");
            std::fs::write(of("uid_map"), &map).step("map user ids")?;
            std::fs::write(of("gid_map"), &map).step("map group ids")?;
            let namespace = std::fs::File::open(of("ns/user")).step("hold a user namespace")?;
            std::fs::File::from(go_out)
                .write_all(b"g")
                .step("release a namespace's keeper")?;
            let mut answer = [0];
            std::fs::File::from(done_in)
                .read_exact(&mut answer)
                .step("forbid nested user namespaces")?;
            Ok(namespace.into())
        }
    }
}

/// The first process of the namespace; it ends with its parent's interest.
fn keep(go: OwnedFd, done: OwnedFd) -> io::Result<()> {
    std::fs::File::from(go).read_exact(&mut [0])?;
    std::fs::write("/proc/sys/user/max_user_namespaces", "0")?;
    rustix::io::write(done.as_fd(), b"d")?;
    Ok(())
}
