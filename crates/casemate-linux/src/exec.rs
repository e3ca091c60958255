//! The last steps before another program: descriptors, signals, exec; and starting ourselves again.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Puts descriptors at fixed places for the program that is executed next, and closes all others
/// above them but `keep`. Sources must lie above every place; places are not closed on exec.
pub fn arrange_fds(places: &[(BorrowedFd<'_>, RawFd)], keep: BorrowedFd<'_>) -> io::Result<()> {
    let highest = places.iter().map(|(_, at)| *at).max().unwrap_or(2);
    let keep = keep.as_raw_fd();
    if keep <= highest || places.iter().any(|(fd, _)| fd.as_raw_fd() <= highest) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (fd, at) in places {
        // SAFETY: dup2 takes any two numbers; what was at `at` is given up by the contract above.
        if unsafe { libc::dup2(fd.as_raw_fd(), *at) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    close_range(highest + 1, keep - 1)?;
    close_range(keep + 1, RawFd::MAX)
}

/// A copy of a descriptor with a number of at least `lowest`, closed on exec.
pub fn dup_above(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, lowest).map_err(Into::into)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: closes numbers only; the caller is about to exec and uses no owner of them again.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// All signals as a new program expects them: default dispositions, nothing blocked.
///
/// Exec itself keeps what is ignored or blocked (the Rust runtime ignores SIGPIPE).
pub fn reset_signals() {
    // The kernel's `struct sigaction` is four words here: handler, flags, restorer, mask. The C
    // library's call would leave out the two signals that it keeps for itself.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: an all-zero action is SIG_DFL and installs no code; what cannot be set is
        // refused by the kernel. 8 is the size of the mask.
        unsafe {
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, 8);
        }
    }
    // SAFETY: an all-zero sigset_t is the empty set, and it lives over the call.
    unsafe {
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Executes the file behind a descriptor. Returns only when that failed.
pub fn exec_fd(program: BorrowedFd<'_>, args: &[&CStr], env: &[&CStr]) -> io::Error {
    let pointers = |texts: &[&CStr]| {
        let mut all: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        all.push(std::ptr::null());
        all
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and, like the strings, live over the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Lets a command inherit descriptors at fixed places above 2.
pub fn inherit_fds(command: &mut Command, fds: Vec<(OwnedFd, RawFd)>) -> io::Result<()> {
    let lowest = fds.iter().map(|(_, at)| at + 1).max().unwrap_or(3);
    let mut moved = Vec::with_capacity(fds.len());
    for (fd, at) in fds {
        // Above all places, so that no dup2 below overwrites a source.
        moved.push((rustix::io::fcntl_dupfd_cloexec(&fd, lowest)?, at));
    }
    let place = move || {
        for (fd, at) in &moved {
            // SAFETY: dup2 is async-signal-safe; the child alone has this descriptor table.
            if unsafe { libc::dup2(fd.as_raw_fd(), *at) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only calls dup2 and allocates nothing.
    unsafe { command.pre_exec(place) };
    Ok(())
}

/// Takes the descriptor that [`inherit_fds`] of the parent placed at `number`.
///
/// `None` when nothing is open there. Call once per number, at the start of the process.
pub fn inherited_fd(number: RawFd) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the number is only asked about here.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: it is open, and by the contract above nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Children of this process vanish when they end, without anybody waiting for them.
pub fn reap_children_automatically() {
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Ordinary scheduling for this process, whatever the service runs with, at this niceness.
///
/// Real-time processes cannot even enter most control groups.
pub fn reset_scheduling(nice: i32) -> io::Result<()> {
    let ordinary = libc::sched_param { sched_priority: 0 };
    // SAFETY: `ordinary` lives over the call; 0 names the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &ordinary) } != 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::process::setpriority_process(None, nice).map_err(Into::into)
}
