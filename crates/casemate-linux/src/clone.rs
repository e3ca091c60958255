//! New processes and namespaces by the raw system calls.
//!
//! A forked child goes on with a copy of one thread only: locks that another thread held stay
//! locked for ever. [`SingleThreaded`] is the proof that there is no other thread; functions that
//! need it take it. The C library is not told of these forks, so a child does little and execs.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

/// Proof that the process had one thread when it was taken. It stays on that thread.
///
/// Whoever holds it must start no thread; nothing in the processes that use it does.
#[derive(Debug)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Counts the threads. `Err` with `WouldBlock` when there is more than one.
    pub fn prove() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(PhantomData)),
            _ => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "this process has several threads",
            )),
        }
    }
}

/// A set of namespace kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(libc::c_int);

impl Namespaces {
    pub const NONE: Self = Self(0);
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP);
    pub const IPC: Self = Self(libc::CLONE_NEWIPC);
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET);
    pub const PID: Self = Self(libc::CLONE_NEWPID);
    /// Only for [`unshare`]: the bit means something else to `clone`.
    pub const TIME: Self = Self(0x80);
    pub const USER: Self = Self(libc::CLONE_NEWUSER);
    pub const UTS: Self = Self(libc::CLONE_NEWUTS);

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Moves the calling thread into new namespaces (its children only, for pid and time).
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    // SAFETY: only namespace bits can be in the set, so no table of descriptors is split.
    match unsafe { libc::unshare(namespaces.0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How [`fork`] makes the child.
#[derive(Debug, Clone, Copy)]
pub struct Fork<'a> {
    /// New ones for the child.
    pub namespaces: Namespaces,
    /// The v2 cgroup in which it is born; else the caller's.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The child becomes a sibling of the caller: its parent reaps it.
    pub sibling: bool,
}

/// On which side of [`fork`] the caller goes on.
#[derive(Debug)]
pub enum Forked {
    Child,
    Parent {
        child: Pid,
        /// Names the child for good, also after it was reaped.
        pidfd: OwnedFd,
    },
}

/// Layout of `struct clone_args`, version 2 (88 bytes).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `clone3` with the caller's memory copied.
pub fn fork(_proof: &SingleThreaded, how: &Fork<'_>) -> io::Result<Forked> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: how.namespaces.0 as u64 | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if how.sibling {
        // The kernel wants no signal named here: the caller's own is inherited.
        args.flags |= libc::CLONE_PARENT as u64;
        args.exit_signal = 0;
    }
    if let Some(cgroup) = how.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` has the kernel's layout and lives over the call, as does `pidfd`; without
    // CLONE_VM the child has its own copy of memory; `_proof` says that no other thread's locks
    // are in that copy.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    match i32::try_from(answer).ok().and_then(Pid::from_raw) {
        None => Ok(Forked::Child),
        Some(child) => {
            // SAFETY: in the parent the kernel stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { child, pidfd })
        }
    }
}

/// Ends this process at once, without running what the parent registered for its own exit.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_has_no_proof() {
        // The test harness runs each test on a thread beside its main one.
        assert_eq!(
            SingleThreaded::prove().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
