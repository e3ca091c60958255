//! Kernel settings of the calling thread's network namespace.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::NetError;

const ROOT: &str = "/proc/sys/net";

/// Sets one value; `name` is a path below `/proc/sys/net`.
pub(crate) fn set(name: &str, value: &str) -> Result<(), NetError> {
    let path = path(name);
    fs::write(&path, value).map_err(|source| NetError::Sysctl { path, source })
}

pub(crate) fn get(name: &str) -> Result<String, NetError> {
    let path = path(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(NetError::Sysctl { path, source }),
    }
}

/// An instance of `/proc` that nobody else looks into, for settings of new namespaces.
///
/// In an instance that lives on, each namespace whose settings were opened keeps an entry of the
/// same name in the same folder; a look-up walks all of them, and takes 0.3 ms beside a thousand.
pub(crate) struct FreshProc(OwnedFd);

impl FreshProc {
    pub(crate) fn mount() -> io::Result<Self> {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(context.as_fd())?;
        let safe = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let root = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, safe)?;
        Ok(Self(root))
    }

    /// As [`set`], for the calling thread's namespace.
    pub(crate) fn set(&self, name: &str, value: &str) -> Result<(), NetError> {
        let below = format!("sys/net/{name}");
        let written = openat(
            &self.0,
            &*below,
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|file| rustix::io::write(&file, value.as_bytes()));
        written.map(drop).map_err(|errno| NetError::Sysctl {
            path: path(name),
            source: errno.into(),
        })
    }

    /// The same; a setting that this kernel does not have (IPv6 switched off) is skipped.
    pub(crate) fn set_if_present(&self, name: &str, value: &str) -> Result<(), NetError> {
        match self.set(name, value) {
            Err(NetError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            other => other,
        }
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}
