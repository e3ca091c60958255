//! What the mount calls of `rustix` lack: changing attributes of a detached mount.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{OpenTreeFlags, open_tree};

/// A detached copy of the one mount at `path` below `dir` (not of mounts under it).
pub fn clone_mount(dir: impl AsFd, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_NO_AUTOMOUNT;
    open_tree(dir, path.as_ref(), flags).map_err(Into::into)
}

/// What [`set_attributes`] switches on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    pub read_only: bool,
    pub no_suid: bool,
    pub no_devices: bool,
    pub no_exec: bool,
    /// What is mounted on it later is seen nowhere else, and what is mounted elsewhere not on it.
    pub private: bool,
    /// Ids on disk `0..n` appear as the ids that the map of this user namespace gives them.
    pub idmap: Option<BorrowedFd<'a>>,
}

/// Changes a mount; with an id map it must be detached and must not have been visible yet.
pub fn set_attributes(mount: impl AsFd, attributes: Attributes<'_>) -> io::Result<()> {
    let mut wanted: libc::mount_attr = libc::mount_attr {
        attr_set: 0,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    for (on, bit) in [
        (attributes.read_only, libc::MOUNT_ATTR_RDONLY),
        (attributes.no_suid, libc::MOUNT_ATTR_NOSUID),
        (attributes.no_devices, libc::MOUNT_ATTR_NODEV),
        (attributes.no_exec, libc::MOUNT_ATTR_NOEXEC),
    ] {
        if on {
            wanted.attr_set |= bit;
        }
    }
    if attributes.private {
        wanted.propagation = libc::MS_PRIVATE;
    }
    if let Some(userns) = attributes.idmap {
        wanted.attr_set |= libc::MOUNT_ATTR_IDMAP;
        wanted.userns_fd = userns.as_raw_fd() as u64;
    }
    // SAFETY: `wanted` has the kernel's layout and lives over the call, as does the empty path.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
