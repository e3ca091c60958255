//! Ways to folders below an open one.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2, readlink, readlinkat};
use rustix::io::Errno;

use super::error::BuildError;
use crate::limits::{PATH_BYTES, SYMLINKS};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Renames anywhere on the machine make a walk over `..` start again; so often in a row is a fault.
const ATTEMPTS: u32 = 10_000;

/// A folder below which names are looked up.
pub struct Root {
    fd: OwnedFd,
    /// Where it is itself.
    own: Vec<u8>,
    resolve: ResolveFlags,
}

impl Root {
    /// Links are followed as if `path` were `/`; the way to what lies on another mount is `EXDEV`.
    pub fn of_image(path: &Path) -> io::Result<Self> {
        let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Self::open(path, flags)
    }

    /// The same, mounts included.
    pub fn of_system(path: &Path) -> io::Result<Self> {
        Self::open(path, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// No link is followed: `ELOOP`.
    pub fn without_links(fd: OwnedFd) -> Self {
        Self {
            fd,
            own: Vec::new(),
            resolve: ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        }
    }

    fn open(path: &Path, resolve: ResolveFlags) -> io::Result<Self> {
        let fd = rustix::fs::open(path, FOLDER, Mode::empty())?;
        let own = path_of(fd.as_fd())?;
        Ok(Self { fd, own, resolve })
    }

    /// The folder at `path`; empty is the root itself. Leading slashes mean nothing.
    pub fn folder(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = match path.iter().position(|byte| *byte != b'/') {
            Some(start) => &path[start..],
            None => b".",
        };
        for _ in 0..ATTEMPTS {
            match openat2(&self.fd, path, FOLDER, Mode::empty(), self.resolve) {
                Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                opened => return opened,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The same, and what is missing on the way is made by `make` (folder above, name). A link to
    /// what is not there has that made.
    pub fn folder_or_make(
        &self,
        path: &[u8],
        make: &mut dyn FnMut(BorrowedFd<'_>, &CStr) -> io::Result<()>,
    ) -> io::Result<OwnedFd> {
        match self.folder(path) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let mut todo: Vec<Vec<u8>> = steps(path);
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut here = self.folder(b"")?;
        let mut links = 0;
        while let Some(step) = todo.pop() {
            if step == b".." {
                done.pop();
                here = self.folder(&done.join(&b'/'))?;
                continue;
            }
            let name = CString::new(step.as_slice()).map_err(io::Error::other)?;
            match self.step(here.as_fd(), &name) {
                Ok(folder) => here = folder,
                Err(Errno::LOOP) if self.resolve.contains(ResolveFlags::IN_ROOT) => {
                    links += 1;
                    if links > SYMLINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = readlinkat(&here, &name, Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        done.clear();
                        here = self.folder(b"")?;
                    }
                    todo.append(&mut steps(&target));
                    continue;
                }
                Err(Errno::NOENT) => {
                    make(here.as_fd(), &name)?;
                    here = self.step(here.as_fd(), &name)?;
                }
                Err(error) => return Err(error.into()),
            }
            done.push(step);
        }
        Ok(here)
    }

    /// One step of the slow way. Whether it may leave the mount is the root's affair.
    fn step(&self, from: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
        match open_step(from, name) {
            Err(Errno::XDEV) if !self.resolve.contains(ResolveFlags::NO_XDEV) => {
                let flags = ResolveFlags::NO_SYMLINKS;
                openat2(from, name, FOLDER, Mode::empty(), flags)
            }
            opened => opened,
        }
    }

    /// Where an open folder is below this root, without a slash at either end.
    pub fn path_of(&self, folder: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
        let path = path_of(folder)?;
        let below = path.strip_prefix(self.own.as_slice());
        let below = below.ok_or_else(|| io::Error::other("a folder was moved away"))?;
        Ok(below.strip_prefix(b"/").unwrap_or(below).to_vec())
    }
}

/// Opens a folder in `parent` without following a link or leaving the mount.
pub fn open_step(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(parent, name, FOLDER, Mode::empty(), flags)
}

/// Without the slash of `/`, so that it is a prefix of all.
fn path_of(folder: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let path = readlink(link, Vec::new())?.into_bytes();
    Ok(if path == b"/" { Vec::new() } else { path })
}

/// Elements of a path, the last one first, without those that mean nothing.
fn steps(path: &[u8]) -> Vec<Vec<u8>> {
    let steps = path.rsplit(|byte| *byte == b'/');
    steps
        .filter(|step| !step.is_empty() && *step != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

/// A name out of an archive, taken apart: the folder (empty: the root) and the last element;
/// `None`: the root itself.
pub fn split(path: &[u8]) -> Result<Option<(Vec<u8>, CString)>, BuildError> {
    let mut steps = steps(path);
    if steps.iter().any(|step| step == b"..") {
        return Err(BuildError::entry(path, "a name must not contain '..'"));
    }
    if path.len() >= PATH_BYTES {
        return Err(BuildError::entry(path, "the name is too long"));
    }
    if steps.is_empty() {
        return Ok(None);
    }
    let name = CString::new(steps.remove(0))
        .map_err(|_| BuildError::entry(path, "a name must not contain NUL"))?;
    steps.reverse();
    Ok(Some((steps.join(&b'/'), name)))
}

/// The folder's name and an element's.
pub fn join(folder: &[u8], name: &CStr) -> Vec<u8> {
    let mut path = folder.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    path
}

/// As [`Path`], for the few calls that take one.
pub fn as_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}
