//! Entries that hide what lower layers brought.

use std::collections::HashSet;
use std::convert::identity;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::Folder;
use crate::build::error::BuildError;
use crate::build::place::{Found, look};
use crate::build::remove::{each, remove};
use crate::build::root::{join, open_step};
use crate::tar::Entry;

pub const PREFIX: &[u8] = b".wh.";
/// Hides all that was in the folder before.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Book-keeping of AUFS, which old images carry: no files of anybody.
const RESERVED: &[u8] = b".wh..wh.";

/// What the layer itself put there, by path below the root.
pub struct Own<'a> {
    pub fresh: &'a HashSet<Vec<u8>>,
    pub kept: &'a HashSet<Vec<u8>>,
}

/// Hides what `name` says; `false`: it was left out, or another mount is in the way.
pub fn apply(
    entry: &Entry,
    folder: &Folder,
    name: &CString,
    own: &Own<'_>,
) -> Result<bool, BuildError> {
    let failed = |source: io::Error| BuildError::write(&entry.path, source);
    let name = name.to_bytes();
    if name == OPAQUE {
        if folder.fresh {
            return Ok(true);
        }
        return own.clear(folder.fd.as_fd(), &folder.path).map_err(failed);
    }
    if name.starts_with(RESERVED) {
        return Ok(false);
    }
    let hidden = &name[PREFIX.len()..];
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(BuildError::entry(&entry.path, "a whiteout of no name"));
    }
    let hidden = CString::new(hidden).map_err(|error| failed(io::Error::other(error)))?;
    let path = join(&folder.path, &hidden);
    if folder.fresh || own.fresh.contains(&path) {
        return Ok(true);
    }
    let fd = folder.fd.as_fd();
    if !own.kept.contains(&path) {
        return match look(fd, &hidden).map_err(|errno| failed(errno.into()))? {
            Found::Mount => Ok(false),
            Found::Nothing => Ok(true),
            Found::Folder | Found::Other => remove(fd, &hidden).map_err(failed),
        };
    }
    match open_step(fd, &hidden) {
        Ok(kept) => own.clear(kept.as_fd(), &path).map_err(failed),
        // A file of this layer.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(true),
        Err(errno) => Err(failed(errno.into())),
    }
}

impl Own<'_> {
    /// Removes all below a folder that is not the layer's own. `false`: a mount is in there.
    fn clear(&self, folder: BorrowedFd<'_>, path: &[u8]) -> io::Result<bool> {
        let mut gone = true;
        each(folder, &identity, &mut |name| {
            let below = join(path, name);
            if self.fresh.contains(&below) {
                return Ok(());
            }
            if !self.kept.contains(&below) {
                gone &= remove(folder, name)?;
                return Ok(());
            }
            match open_step(folder, name) {
                Ok(kept) => gone &= self.clear(kept.as_fd(), &below)?,
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(())
        })?;
        Ok(gone)
    }
}
