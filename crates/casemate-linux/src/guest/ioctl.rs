//! Freezing a file system against writes.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `_IOWR('X', 119, int)`.
const FIFREEZE: libc::c_ulong = 0xc004_5877;
/// `_IOWR('X', 120, int)`.
const FITHAW: libc::c_ulong = 0xc004_5878;

/// Flushes and stops writes to the file system that `fd` is on; `EBUSY` when it is frozen.
pub fn filesystem_freeze(fd: impl AsFd) -> io::Result<()> {
    without_argument(fd, FIFREEZE)
}

/// Undoes [`filesystem_freeze`]; `EINVAL` when it is not frozen.
pub fn filesystem_thaw(fd: impl AsFd) -> io::Result<()> {
    without_argument(fd, FITHAW)
}

fn without_argument(fd: impl AsFd, request: libc::c_ulong) -> io::Result<()> {
    // SAFETY: both requests ignore the argument; the descriptor is borrowed for the call.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request as _, 0) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
