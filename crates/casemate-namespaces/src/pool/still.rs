//! Walking a tree in which nothing changes: a layer whose sandbox is frozen or has ended.
//!
//! However deep a sandbox nested its folders: it goes down and up by one descriptor, so that no
//! path is too long and nothing recurses. No link is followed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};

/// What is done on the way.
pub(super) trait Visit {
    /// Of every entry of a folder, folders among them.
    fn entry(&mut self, folder: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()>;
    /// Going into a folder of which [`Visit::entry`] told.
    fn enter(&mut self, _name: &CStr) -> io::Result<()> {
        Ok(())
    }
    /// Done with all in a folder, going up; at last with the top itself.
    fn leave(&mut self, _folder: &OwnedFd) -> io::Result<()> {
        Ok(())
    }
}

/// In which order a folder's entries are told, folders that are entered among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As the file system has them, which costs nothing.
    AsFound,
    /// The same wherever the tree lies.
    ByName,
}

pub(super) fn walk(top: &Path, visit: &mut impl Visit) -> io::Result<()> {
    walk_in(top, Order::AsFound, visit)
}

pub(super) fn walk_in(top: &Path, order: Order, visit: &mut impl Visit) -> io::Result<()> {
    let mut at = folder(openat(CWD, top, FOLDER, Mode::empty()))?;
    // Of each folder on the way, those in it that are left.
    let mut levels = vec![look(&at, order, visit)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.pop() {
            visit.enter(&name)?;
            at = folder(openat(&at, &name, FOLDER, Mode::empty()))?;
            levels.push(look(&at, order, visit)?);
            continue;
        }
        visit.leave(&at)?;
        levels.pop();
        if !levels.is_empty() {
            at = folder(openat(&at, c"..", FOLDER, Mode::empty()))?;
        }
    }
    Ok(())
}

pub(super) const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn folder(opened: rustix::io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    Ok(opened?)
}

pub(super) fn is_folder(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Directory
}

/// Tells of the entries of a folder; answers with the folders among them, the next one last.
fn look(at: &OwnedFd, order: Order, visit: &mut impl Visit) -> io::Result<Vec<CString>> {
    let mut folders = Vec::new();
    let mut tell = |name: CString| -> io::Result<()> {
        let found = statat(at, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        visit.entry(at, &name, &found)?;
        if is_folder(&found) {
            folders.push(name);
        }
        Ok(())
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(at)? {
        let name = entry?.file_name().to_owned();
        match (name.to_bytes(), order) {
            (b"." | b"..", _) => {}
            (_, Order::AsFound) => tell(name)?,
            (_, Order::ByName) => names.push(name),
        }
    }
    names.sort_unstable();
    names.into_iter().try_for_each(&mut tell)?;
    if order == Order::ByName {
        folders.reverse();
    }
    Ok(folders)
}

/// Bytes of a file, as they lie on the disk: each of its names has its share.
fn bytes(found: &Stat) -> u64 {
    let names = if is_folder(found) {
        1
    } else {
        found.st_nlink.max(1)
    };
    u64::try_from(found.st_blocks).unwrap_or(0) * 512 / names
}

/// Bytes of all below `top`.
pub(super) fn bytes_below(top: &Path) -> io::Result<u64> {
    struct Sum(u64);
    impl Visit for Sum {
        fn entry(&mut self, _folder: &OwnedFd, _name: &CStr, found: &Stat) -> io::Result<()> {
            self.0 = self.0.saturating_add(bytes(found));
            Ok(())
        }
    }
    let mut sum = Sum(0);
    walk(top, &mut sum)?;
    Ok(sum.0)
}
