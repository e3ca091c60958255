//! Giving the selected files their owner and mode, and moving them where they belong.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, chmodat, chownat, fchmod, fchown, mkdirat, openat, renameat,
    statat,
};
use rustix::io::Errno;

use super::accounts::Owner;
use super::select::Source;
use crate::build::error::BuildError;
use crate::build::input::Stop;
use crate::build::remove::each;
use crate::build::root::{Root, join, open_step};

/// The deepest folder on the way to `target` that is there.
pub fn nearest(system: &Root, target: &str) -> Result<OwnedFd, BuildError> {
    let mut path = target.trim_end_matches('/');
    loop {
        match system.folder(path.as_bytes()) {
            Ok(folder) => return Ok(folder),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.is_empty() => {
                let end = path.rfind('/').unwrap_or_default();
                path = path[..end].trim_end_matches('/');
            }
            Err(errno) => return Err(BuildError::write(target.as_bytes(), errno)),
        }
    }
}

/// How a step copies.
pub struct Put<'a> {
    pub system: &'a Root,
    pub owner: Owner,
    pub mode: Option<u32>,
    pub stop: &'a Stop,
}

impl Put<'_> {
    /// `chown -R`, then `chmod -R`; links get the owner alone.
    pub fn own(&self, source: &Source) -> Result<(), BuildError> {
        match source {
            Source::Contents(folder) => self.own_folder(folder, b""),
            Source::One { folder, name } => self.own_one(folder.as_fd(), name, b""),
        }
    }

    fn own_folder(&self, folder: &OwnedFd, path: &[u8]) -> Result<(), BuildError> {
        let Owner { user, group } = self.owner;
        let failed = |errno: Errno| BuildError::write(path, errno);
        fchown(folder, Some(user), Some(group)).map_err(failed)?;
        if let Some(mode) = self.mode {
            fchmod(folder, Mode::from_raw_mode(mode)).map_err(failed)?;
        }
        let unreadable = |source| BuildError::write(path, source);
        each(folder.as_fd(), &unreadable, &mut |name| {
            self.own_one(folder.as_fd(), name, path)
        })
    }

    fn own_one(&self, folder: BorrowedFd<'_>, name: &CStr, above: &[u8]) -> Result<(), BuildError> {
        self.stop.check()?;
        let path = join(above, name);
        let failed = |errno: Errno| BuildError::write(&path, errno);
        let kind = kind_of(folder, name).map_err(failed)?;
        if kind.is_dir() {
            let below = open_step(folder, name).map_err(failed)?;
            return self.own_folder(&below, &path);
        }
        let Owner { user, group } = self.owner;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(folder, name, Some(user), Some(group), flags).map_err(failed)?;
        if let Some(mode) = self.mode.filter(|_| !kind.is_symlink()) {
            // The folder is private, so it is no link by now.
            chmodat(folder, name, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(failed)?;
        }
        Ok(())
    }

    pub fn move_to(&self, source: &Source, target: &Path) -> Result<(), BuildError> {
        let target = target.as_os_str().as_bytes();
        match source {
            Source::Contents(contents) => {
                let into = self.folder(target)?;
                self.merge(contents, &into, target)
            }
            Source::One { folder, name } => {
                let (into, new_name) = self.place_of(target, name)?;
                let failed = |errno| overwriting(target, errno);
                renameat(folder, name, into, &new_name).map_err(failed)
            }
        }
    }

    /// Where one file goes: inside of what is a folder or shall be one, else exactly there.
    fn place_of(&self, target: &[u8], name: &CStr) -> Result<(OwnedFd, CString), BuildError> {
        let start = target.iter().rposition(|byte| *byte == b'/');
        let (above, last) = target.split_at(start.map_or(0, |start| start + 1));
        if matches!(last, b"" | b"." | b"..") {
            return Ok((self.folder(target)?, name.to_owned()));
        }
        match self.system.folder(target) {
            Ok(folder) => Ok((folder, name.to_owned())),
            // Not there, or no folder; a link that leads nowhere is replaced.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                let last = CString::new(last)
                    .map_err(|_| BuildError::entry(target, "a name must not contain NUL"))?;
                Ok((self.folder(above)?, last))
            }
            Err(errno) => Err(BuildError::write(target, errno)),
        }
    }

    /// The folder at `path`; what is missing is made for the owner.
    fn folder(&self, path: &[u8]) -> Result<OwnedFd, BuildError> {
        let Owner { user, group } = self.owner;
        let opened = self.system.folder_or_make(path, &mut |above, name| {
            mkdirat(above, name, Mode::from_raw_mode(0o755))?;
            let made = open_step(above, name)?;
            Ok(fchown(made, Some(user), Some(group))?)
        });
        opened.map_err(|source| BuildError::write(path, source))
    }

    /// Moves all that is in `from` into `into`. Folders that are there stay as they are, and so do
    /// links to folders; files and other links are replaced.
    fn merge(&self, from: &OwnedFd, into: &OwnedFd, path: &[u8]) -> Result<(), BuildError> {
        let unreadable = |source| BuildError::write(path, source);
        each(from.as_fd(), &unreadable, &mut |name| {
            self.stop.check()?;
            let path = join(path, name);
            let failed = |errno: Errno| overwriting(&path, errno);
            if kind_of(from.as_fd(), name).map_err(failed)?.is_dir() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                match openat(into, name, flags, Mode::empty()) {
                    Ok(there) => {
                        let here = open_step(from.as_fd(), name).map_err(failed)?;
                        return self.merge(&here, &there, &path);
                    }
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
            renameat(from, name, into, name).map_err(failed)
        })
    }
}

fn kind_of(folder: BorrowedFd<'_>, name: &CStr) -> Result<FileType, Errno> {
    let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode))
}

/// The kernel's word for the two ways in which a file and a folder are in each other's way says
/// little.
fn overwriting(path: &[u8], errno: Errno) -> BuildError {
    match errno {
        Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => {
            BuildError::entry(path, "a folder is there, and cannot become a file")
        }
        Errno::NOTDIR => BuildError::entry(path, "a file is there, and cannot become a folder"),
        errno => BuildError::write(path, io::Error::from(errno)),
    }
}
