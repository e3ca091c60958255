//! The first process, from its birth to the agent's program.
//!
//! It is root of the new user namespace and nothing on the host. It puts its own root together,
//! gives up what it needs no more and executes the agent. Order matters at the end: the filter
//! first, capabilities after, because installing a filter without `CAP_SYS_ADMIN` needs
//! `no_new_privs`, which would disable `sudo`.

use std::ffi::{CStr, CString};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use casemate_linux::{creds, exec};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::process::{Pid, Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CpuSet, Gid, Uid};

use super::machine::Taken;
use super::message::{Order, Parts};
use super::own::{self, Own};
use super::room::{Room, attach};
use crate::step::{Step, StepError};

pub(super) struct Inside<'a> {
    pub(super) room: &'a Room,
    pub(super) own: &'a Own,
    pub(super) order: &'a Order,
    pub(super) parts: &'a Parts<OwnedFd>,
    pub(super) taken: &'a Taken,
    pub(super) root: &'a OwnedFd,
    pub(super) listener: &'a OwnedFd,
}

/// What root in a sandbox may do (`docs/security.md` says why each).
const CAPABILITIES: [CapabilitySet; 17] = [
    CapabilitySet::CHOWN,
    CapabilitySet::DAC_OVERRIDE,
    CapabilitySet::DAC_READ_SEARCH,
    CapabilitySet::FOWNER,
    CapabilitySet::FSETID,
    CapabilitySet::SETUID,
    CapabilitySet::SETGID,
    CapabilitySet::SETPCAP,
    CapabilitySet::SETFCAP,
    CapabilitySet::KILL,
    CapabilitySet::SYS_CHROOT,
    CapabilitySet::NET_BIND_SERVICE,
    CapabilitySet::NET_RAW,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::AUDIT_WRITE,
    CapabilitySet::IPC_LOCK,
    CapabilitySet::SYS_NICE,
];

/// At most 64 terminals: all sandboxes of a host share one number of them, 3072 where nobody raised
/// it. More than anybody opens by hand, and as many as an agent's shells are likely to be.
const PTYS: &std::ffi::CStr = c"newinstance,ptmxmode=0666,mode=0620,gid=5,max=64";

/// Returns only when something failed: what failed is in the output, the answer is the exit code.
pub(super) fn run(inside: &Inside<'_>) -> i32 {
    let error = match become_agent(inside) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    if let Ok(output) = inside.parts.output.try_clone() {
        // Nobody is left to tell when this fails.
        let _ = writeln!(std::fs::File::from(output), "{error}: {}", error.source);
    }
    1
}

fn become_agent(inside: &Inside<'_>) -> Result<std::convert::Infallible, StepError> {
    become_root().step("become root of the sandbox")?;
    rustix::process::setsid().step("start a session")?;
    creds::join_new_session_keyring().step("leave the host's keyring")?;
    build_root(inside)?;
    // Everything it is made of is attached in it by now.
    unmount(own::PLACE, UnmountFlags::DETACH).step("leave nothing below the root")?;
    rustix::process::chroot(".").step("change the root")?;
    rustix::system::sethostname(inside.order.hostname.as_bytes()).step("set the host name")?;
    restrict(inside.order).step("set resource limits")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let (own, parts) = (inside.own, inside.parts);
    let places: [(BorrowedFd<'_>, i32); 8] = [
        (own.null.as_fd(), 0),
        (parts.output.as_fd(), 1),
        (parts.output.as_fd(), 2),
        (parts.config.as_fd(), 3),
        (inside.listener.as_fd(), 4),
        (parts.ready.as_fd(), 5),
        (inside.taken.disk.as_fd(), 6),
        (parts.log.as_fd(), 7),
    ];
    exec::arrange_fds(&places, own.agent.as_fd()).step("hand over descriptors")?;
    let filter = &inside.room.filter;
    filter.install().step("install the system call filter")?;
    let kept = CAPABILITIES
        .into_iter()
        .fold(CapabilitySet::empty(), |all, one| all | one);
    creds::keep_capabilities(kept).step("give up capabilities")?;
    let env = [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
    let args: [&CStr; 2] = [c"envd", c"init"];
    Err(exec::exec_fd(own.agent.as_fd(), &args, &env)).step("execute the agent")
}

fn become_root() -> io::Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Paths with a slash in front are in the namespace's bare root, the others in the sandbox's, which
/// lies over it.
fn build_root(inside: &Inside<'_>) -> Result<(), StepError> {
    attach(inside.root, Path::new("/")).step("attach the root")?;
    rustix::process::fchdir(inside.root).step("enter the root")?;
    attach(&inside.own.mount, Path::new(own::PLACE)).step("attach its own view")?;
    ensure_folder("tmp", 0o1777).step("make /tmp")?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let proc = || mount("proc", "proc", "proc", safe, None);
    on_folder("proc", 0o555, proc).step("mount /proc")?;
    inside.room.machine.show(inside.order, inside.taken)?;
    let dev = format!("{}/dev", own::PLACE);
    on_folder("dev", 0o755, || mount_bind(dev.as_str(), "dev")).step("attach /dev")?;
    let terminals = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", "dev/pts", "devpts", terminals, PTYS).step("mount /dev/pts")?;
    let shared = MountFlags::NOSUID | MountFlags::NODEV;
    let bounds = CString::new(format!(
        "mode=1777,size={}",
        inside.order.shared_memory_bytes
    ));
    let bounds = bounds.map_err(io::Error::from).step("mount /dev/shm")?;
    mount("tmpfs", "dev/shm", "tmpfs", shared, bounds.as_c_str()).step("mount /dev/shm")?;
    mount("mqueue", "dev/mqueue", "mqueue", safe, None).step("mount /dev/mqueue")
}

/// Mounts on a folder, which every usual image has; a look first would cost each sandbox.
pub(super) fn on_folder(
    path: &str,
    mode: u32,
    mount: impl Fn() -> Result<(), Errno>,
) -> io::Result<()> {
    match mount() {
        Err(Errno::NOENT) => {
            ensure_folder(path, mode)?;
            Ok(mount()?)
        }
        other => Ok(other?),
    }
}

fn ensure_folder(path: &str, mode: u32) -> io::Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn restrict(order: &Order) -> io::Result<()> {
    if let Some(bytes) = order.file_bytes_max {
        setrlimit(
            Resource::Fsize,
            Rlimit {
                current: Some(bytes),
                maximum: Some(bytes),
            },
        )?;
    }
    if !order.processors.is_empty() {
        let mut set = CpuSet::new();
        for processor in &order.processors {
            set.set(usize::try_from(*processor).unwrap_or(0) % CpuSet::MAX_CPU);
        }
        rustix::thread::sched_setaffinity(None::<Pid>, &set)?;
    }
    Ok(())
}
