//! Removing trees within one mount.

use std::convert::identity;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, unlinkat};
use rustix::io::Errno;

use super::root::open_step;

/// Removes what `name` in `parent` is, with all below it. `false`: some of it is another mount, and
/// stays with the folders above it. What is not there is gone.
pub fn remove(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        // Something is mounted there.
        Err(Errno::BUSY) => return Ok(false),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let folder = match open_step(parent, name) {
        Ok(folder) => folder,
        Err(Errno::XDEV) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut gone = true;
    each(folder.as_fd(), &identity, &mut |name| {
        gone &= remove(folder.as_fd(), name)?;
        Ok(())
    })?;
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(Errno::NOTEMPTY) if !gone => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Calls `with` for each name in a folder. It may remove or move away the one it is called for. An
/// error of reading the folder becomes `failed`'s.
pub fn each<E>(
    folder: BorrowedFd<'_>,
    failed: &dyn Fn(io::Error) -> E,
    with: &mut dyn FnMut(&CStr) -> Result<(), E>,
) -> Result<(), E> {
    let mut names = Dir::read_from(folder).map_err(|errno| failed(errno.into()))?;
    while let Some(entry) = names.read() {
        let entry = entry.map_err(|errno| failed(errno.into()))?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            with(name)?;
        }
    }
    Ok(())
}
