//! Forking without exec, for the init that becomes two processes of one binary.

use std::fs;
use std::io;

use rustix::process::Pid;

/// Which side of the fork this is.
pub enum Fork {
    Parent { child: Pid },
    Child,
}

#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    #[error("cannot count own threads")]
    CountThreads(#[source] io::Error),
    #[error("a process with {0} threads must not fork without exec")]
    Threaded(usize),
    #[error("fork")]
    Fork(#[source] io::Error),
}

/// `fork(2)`; the child may go on as an ordinary program, because there is no other thread whose
/// locks it could have inherited.
pub fn fork_single_threaded() -> Result<Fork, ForkError> {
    let threads = fs::read_dir("/proc/self/task")
        .map_err(ForkError::CountThreads)?
        .count();
    if threads != 1 {
        return Err(ForkError::Threaded(threads));
    }
    // SAFETY: the process has one thread (checked above; only that thread could start another),
    // so the child's copy of memory is consistent and it may call anything.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(ForkError::Fork(io::Error::last_os_error())),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid)
            .map(|child| Fork::Parent { child })
            .ok_or_else(|| ForkError::Fork(io::Error::other("fork gave no pid"))),
    }
}
