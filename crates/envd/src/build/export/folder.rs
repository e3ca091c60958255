//! Folders on the way through all files, with their names.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

use super::super::error::BuildError;
use super::super::root::join;
use crate::limits::{BUILD_NAME_BYTES, PATH_BYTES};

/// A folder that is gone through.
pub struct Folder {
    pub fd: OwnedFd,
    /// Below the root, without slashes at its ends.
    pub path: Vec<u8>,
    /// Those to come, the next one last.
    names: Vec<CString>,
    name_bytes: usize,
}

/// Of all names that are kept.
#[derive(Default)]
pub struct Budget(usize);

impl Budget {
    pub fn charge(&mut self, bytes: usize) -> Result<(), BuildError> {
        self.0 += bytes;
        match self.0 > BUILD_NAME_BYTES {
            true => Err(BuildError::Names),
            false => Ok(()),
        }
    }
}

pub fn open_root(root: &Path) -> Result<OwnedFd, BuildError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| BuildError::read(b"/", errno))
}

impl Folder {
    /// Reads all names of a folder.
    pub fn read(fd: OwnedFd, path: Vec<u8>, budget: &mut Budget) -> Result<Self, BuildError> {
        let failed = |errno: Errno| BuildError::read(&path, errno);
        let (mut names, before) = (Vec::new(), budget.0);
        for entry in Dir::read_from(&fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                budget.charge(name.as_bytes().len() + size_of::<CString>())?;
                names.push(name);
            }
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Self {
            fd,
            path,
            names,
            name_bytes: budget.0 - before,
        })
    }

    /// The next name; after the last one the folder is over.
    pub fn next(&mut self, budget: &mut Budget) -> Option<CString> {
        let next = self.names.pop();
        if next.is_none() {
            budget.0 -= std::mem::take(&mut self.name_bytes);
        }
        next
    }

    /// Where a name of it is below the root.
    pub fn path_of(&self, name: &CString) -> Result<Vec<u8>, BuildError> {
        let path = join(&self.path, name);
        // With the slash of folders.
        if path.len() + 1 >= PATH_BYTES {
            return Err(BuildError::entry(&path, "the name is too long"));
        }
        Ok(path)
    }
}
