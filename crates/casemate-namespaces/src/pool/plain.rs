//! Layers as plain folders: for kernels without btrfs. Nothing bounds their sum.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use casemate_runtime::DiskLimit;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::copy::{self, AsItIs};
use super::{INNER, Layers, still};

/// Beside the others while a copy is made.
const LINKS: &str = "links";

#[derive(Debug)]
pub(super) struct Plain;

impl Layers for Plain {
    fn disk_limit(&self) -> DiskLimit {
        DiskLimit::Advisory
    }

    fn make(&self, folder: &Path, name: &str) -> io::Result<()> {
        std::fs::create_dir(folder.join(name))
    }

    fn copy(&self, layer: &Path, folder: &Path, name: &str) -> io::Result<()> {
        let place = folder.join(name);
        std::fs::create_dir(&place)?;
        let [upper, work] = INNER;
        std::fs::create_dir(place.join(work))?;
        let (from, to) = (layer.join(upper), place.join(upper));
        copy::tree(&from, &to, &place.join(LINKS), &mut AsItIs)
    }

    fn sync_copy(&self, layer: &Path) -> io::Result<()> {
        self.commit(layer)
    }

    fn limit(&self, _layer: &Path, _bytes: u64) -> io::Result<()> {
        // Processes get a bound on each file instead.
        Ok(())
    }

    fn used_bytes(&self, layer: &Path) -> io::Result<u64> {
        used_bytes(layer)
    }

    fn holds_bytes(&self, layer: &Path) -> io::Result<u64> {
        still::bytes_below(layer)
    }

    /// Where the file system does share, nobody counts it.
    fn copies_share(&self) -> bool {
        false
    }

    fn note_size(&self, _layer: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Walking files would be the only way.
    fn kept_bytes(&self, _layer: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn commit(&self, kept: &Path) -> io::Result<()> {
        let root = rustix::fs::open(kept, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rustix::fs::syncfs(&root)?)
    }

    fn is_worth_emptying(&self, _layer: &Path) -> bool {
        false
    }

    fn delete(&self, folder: &Path, name: &str) -> io::Result<()> {
        delete_flat(folder, name)
    }

    fn tidy(&self, _root: &Path, _folders: &[PathBuf]) -> io::Result<bool> {
        Ok(true)
    }
}

/// What has gone meanwhile, or lies deeper than a path can name, is left out.
fn used_bytes(layer: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    walk(layer, |entry| {
        bytes += entry;
        true
    })?;
    Ok(bytes)
}

/// Whether no more entries and bytes than that are below `layer`. Bytes that were not written to
/// disk yet count too; no more is looked at than is needed to tell.
pub(super) fn holds_at_most(layer: &Path, entries_max: usize, bytes_max: u64) -> io::Result<bool> {
    let (mut entries, mut bytes) = (0, 0);
    let missed = walk(layer, |entry| {
        entries += 1;
        bytes += entry;
        entries <= entries_max && bytes <= bytes_max
    })?;
    Ok(missed == Missed::Nothing)
}

/// What a walk did not see.
#[derive(Debug, PartialEq, Eq)]
enum Missed {
    Nothing,
    Some,
}

/// Tells `see` the bytes of each entry, until it wants no more. The sandbox may change what is
/// looked at, and we are root: a folder that has become a link since it was listed would lead to the
/// host's own. So no link is followed and nothing outside is opened.
fn walk(layer: &Path, mut see: impl FnMut(u64) -> bool) -> io::Result<Missed> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let layer = rustix::fs::open(layer, folder | OFlags::NOFOLLOW, Mode::empty())?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let mut missed = Missed::Nothing;
    let mut folders = vec![PathBuf::from(".")];
    while let Some(path) = folders.pop() {
        let opened = rustix::fs::openat2(&layer, &path, folder, Mode::empty(), inside);
        match opened.and_then(|folder| look(&folder, &path, &mut folders, &mut see)) {
            Ok(true) => {}
            Ok(false) => return Ok(Missed::Some),
            // Renamed while it was resolved, the last of them.
            Err(
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::LOOP
                | Errno::XDEV
                | Errno::NAMETOOLONG
                | Errno::AGAIN,
            ) => missed = Missed::Some,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missed)
}

/// Tells of the entries of one folder; folders among them are added to `folders`. `false`: no more
/// is wanted.
fn look(
    folder: &OwnedFd,
    path: &Path,
    folders: &mut Vec<PathBuf>,
    see: &mut impl FnMut(u64) -> bool,
) -> rustix::io::Result<bool> {
    use std::os::unix::ffi::OsStrExt;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(found) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if !see(u64::try_from(found.st_blocks).unwrap_or(0) * 512) {
            return Ok(false);
        }
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            folders.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
        }
    }
    Ok(true)
}

/// Deletes a folder and all in it, however deep a sandbox nested it: each folder that is not empty
/// is moved up beside the first one, so no path grows and nothing recurses. What a crash leaves
/// lies in `folder` too, and is deleted by name like any other.
pub(super) fn delete_flat(folder: &Path, name: &str) -> io::Result<()> {
    let mut waiting = vec![folder.join(name)];
    let mut moved = 0_u64;
    while let Some(path) = waiting.pop() {
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            // Of the entry itself, never of what a link points at.
            if !entry.file_type()?.is_dir() {
                std::fs::remove_file(entry.path())?;
                continue;
            }
            match std::fs::remove_dir(entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    waiting.push(move_beside(folder, name, &entry.path(), &mut moved)?);
                }
                other => other?,
            }
        }
        std::fs::remove_dir(&path)?;
    }
    Ok(())
}

fn move_beside(folder: &Path, name: &str, path: &Path, moved: &mut u64) -> io::Result<PathBuf> {
    loop {
        *moved += 1;
        let place = folder.join(format!("{name}.{moved}"));
        match std::fs::rename(path, &place) {
            Ok(()) => return Ok(place),
            // What a crash left, with something in it.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_followed_and_deep_folders_are_no_error() {
        let home = std::env::temp_dir().join(format!("casemate-count-{}", std::process::id()));
        let (outside, layer) = (home.join("outside"), home.join("layer"));
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::create_dir_all(layer.join("upper")).unwrap();
        std::fs::write(outside.join("large"), vec![1; 1 << 20]).unwrap();
        std::fs::write(layer.join("upper/small"), vec![1; 64 << 10]).unwrap();
        std::os::unix::fs::symlink(&outside, layer.join("upper/link")).unwrap();
        let used = used_bytes(&layer).unwrap();
        assert!((64 << 10..1 << 20).contains(&used), "{used}");
        let mut at = rustix::fs::open(&layer, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..2500 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        assert!(used_bytes(&layer).unwrap() >= used);
        // A folder that was swapped for a link after it was listed.
        let mut listed = Vec::new();
        let top = rustix::fs::open(&layer, OFlags::DIRECTORY, Mode::empty()).unwrap();
        look(&top, Path::new("."), &mut listed, &mut |_| true).unwrap();
        assert!(listed.contains(&PathBuf::from("./upper")), "{listed:?}");
        std::fs::rename(layer.join("upper"), home.join("away")).unwrap();
        std::os::unix::fs::symlink(&outside, layer.join("upper")).unwrap();
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let opened = rustix::fs::openat2(&top, "./upper", OFlags::RDONLY, Mode::empty(), inside);
        assert_eq!(opened.unwrap_err(), Errno::LOOP);
        delete_flat(&home, "layer").unwrap();
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_very_deep_folder_is_deleted_and_links_are_not_followed() {
        let home = std::env::temp_dir().join(format!("casemate-plain-{}", std::process::id()));
        let (kept, trash) = (home.join("kept"), home.join("trash"));
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::create_dir_all(trash.join("l/side/more")).unwrap();
        std::fs::create_dir_all(trash.join("l.1/left by a crash")).unwrap();
        std::fs::write(kept.join("file"), "kept").unwrap();
        std::os::unix::fs::symlink(&kept, trash.join("l/side/link")).unwrap();
        // Deeper than a path can name, and than a stack could go.
        let mut at = rustix::fs::open(
            trash.join("l"),
            rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        for _ in 0..2500 {
            rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
            let below = rustix::fs::OFlags::DIRECTORY;
            at = rustix::fs::openat(&at, "d", below, rustix::fs::Mode::empty()).unwrap();
        }
        drop(at);
        delete_flat(&trash, "l").unwrap();
        let left: Vec<_> = std::fs::read_dir(&trash).unwrap().collect();
        assert_eq!(left.len(), 1, "only what is another's: {left:?}");
        assert_eq!(std::fs::read_to_string(kept.join("file")).unwrap(), "kept");
        std::fs::remove_dir_all(home).unwrap();
    }
}
