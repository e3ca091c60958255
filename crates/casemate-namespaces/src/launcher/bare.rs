//! The bare namespace: the mount namespace of which those of sandboxes are copies.
//!
//! A sandbox's root is laid over the root of its namespace and entered by `chroot`. Putting it there
//! by `pivot_root` would leave nothing below, but the kernel then looks at every process of the
//! host: 1.2 ms beside a thousand sandboxes, beside none 0.05. What lies below stays as long as the
//! sandbox, out of its sight and reach (`docs/security.md`), so it is next to nothing:
//!
//! ```text
//! /       tmpfs, read-only
//! /own    empty: where a sandbox's view of what is the same for all is attached while it is made
//! /proc   of a namespace of processes that has none; without one in sight the kernel refuses a
//!         sandbox its own
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use casemate_linux::clone::{Fork, Forked, Namespaces, SingleThreaded, exit_now, fork};
use casemate_linux::mount::{Attributes, set_attributes};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{chdir, pivot_root};

use super::own;
use super::room::{attach, tmpfs};
use crate::step::{Step, StepError};

/// Kept alive by its descriptor alone. Call it in the room.
pub(super) fn make(proof: &SingleThreaded) -> Result<OwnedFd, StepError> {
    let (go_in, go_out) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let (done_in, done_out) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    let how = Fork {
        namespaces: Namespaces::MOUNT.and(Namespaces::PID),
        cgroup: None,
        sibling: false,
    };
    match fork(proof, &how).step("make a bare namespace")? {
        Forked::Child => {
            drop((go_out, done_in));
            let furnished = furnish_and_wait(&done_out, go_in);
            if let Err(error) = &furnished {
                eprintln!("casemate: a bare namespace cannot be furnished: {error}");
            }
            exit_now(i32::from(furnished.is_err()))
        }
        Forked::Parent { child, .. } => {
            drop((go_in, done_out));
            let furnished = File::from(done_in).read_exact(&mut [0]);
            furnished.step("furnish a bare namespace")?;
            let namespace = format!("/proc/{}/ns/mnt", child.as_raw_nonzero());
            let namespace = File::open(namespace).step("hold a bare namespace")?;
            // Its maker ends now, and with it the last process of the namespace.
            drop(go_out);
            Ok(namespace.into())
        }
    }
}

fn furnish_and_wait(done: &OwnedFd, go: OwnedFd) -> io::Result<()> {
    let root = tmpfs("0755")?;
    attach(&root, Path::new("/mnt"))?;
    chdir("/mnt")?;
    // Relative to what becomes the root.
    std::fs::create_dir(own::PLACE.trim_start_matches('/'))?;
    std::fs::create_dir("proc")?;
    // Not read-only: a sandbox could then have no other.
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "proc", "proc", safe, None)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    let read_only = Attributes {
        read_only: true,
        ..Attributes::default()
    };
    set_attributes(&root, read_only)?;
    rustix::io::write(done.as_fd(), b"d")?;
    // Until the other end is closed.
    File::from(go).read_exact(&mut [0]).or(Ok(()))
}
