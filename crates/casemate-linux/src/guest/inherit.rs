//! Descriptors that a process was started with.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

static TAKEN: AtomicU64 = AtomicU64::new(0);

/// The descriptor `number` (3 to 63), as this process was started with it. Each number is given
/// out once; asked for before anything else is opened, it is what the parent put there.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if !(3..64).contains(&number) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let bit = 1_u64 << number;
    if TAKEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: F_GETFD only looks at the number.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open (just checked), was inherited, and is given out only once
    // (`TAKEN`), so nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Marks every open descriptor from `first` up as close-on-exec, so that none of those we were
/// started with reaches a program that we start.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    let first = u32::try_from(first).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: no pointers; only a flag of our own descriptors changes.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
