//! The folder that an archive is unpacked into: root's alone, beside the target, and not for long.

use std::convert::identity;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, mkdirat, unlinkat};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::build::remove::{each, remove};
use crate::build::root::open_step;

/// Programs that look into the folder of a target may see it while a step runs.
const PREFIX: &str = ".casemate-copy-";
const TREE: &std::ffi::CStr = c"tree";

pub struct Private {
    beside: OwnedFd,
    name: CString,
    folder: OwnedFd,
    removed: bool,
}

impl Private {
    pub fn make(beside: OwnedFd) -> io::Result<Self> {
        let mut random = [0; 8];
        let filled = getrandom(&mut random, GetRandomFlags::empty())?;
        let random = u64::from_le_bytes(random);
        debug_assert_eq!(filled, 8, "so few bytes come at once");
        let name = CString::new(format!("{PREFIX}{random:016x}")).map_err(io::Error::other)?;
        mkdirat(&beside, &name, Mode::RWXU)?;
        let folder = match open_step(beside.as_fd(), &name) {
            Ok(folder) => folder,
            Err(error) => {
                let _ = unlinkat(&beside, &name, AtFlags::REMOVEDIR);
                return Err(error.into());
            }
        };
        Ok(Self {
            beside,
            name,
            folder,
            removed: false,
        })
    }

    /// A folder within: its owner and mode may change, and still nobody else gets there.
    pub fn tree(&self) -> io::Result<OwnedFd> {
        mkdirat(&self.folder, TREE, Mode::from_raw_mode(0o755))?;
        Ok(open_step(self.folder.as_fd(), TREE)?)
    }

    pub fn remove(mut self) -> io::Result<()> {
        self.removed = true;
        self.clear()
    }

    /// First what is in it, by handle: whoever owns the folder beside may have renamed it.
    fn clear(&self) -> io::Result<()> {
        each(self.folder.as_fd(), &identity, &mut |name| {
            remove(self.folder.as_fd(), name).map(drop)
        })?;
        remove(self.beside.as_fd(), &self.name).map(drop)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if !self.removed {
            // After a panic; there is nobody to tell.
            let _ = self.clear();
        }
    }
}
