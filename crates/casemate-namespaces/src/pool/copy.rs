//! Copies of trees, where the file system makes none of a whole: all that an overlay's upper folder
//! may hold, as it is.
//!
//! Content is shared where the file system can do that, and holes stay holes. Nothing is written to
//! disk for good.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
    XattrFlags, chmodat, chownat, fstat, ftruncate, ioctl_ficlone, lgetxattr, linkat, llistxattr,
    lsetxattr, mkdirat, mknodat, openat, readlinkat, seek, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::still::{self, FOLDER, Visit, is_folder};

/// Bytes that are copied at once where content cannot be shared.
const PIECE: usize = 256 << 10;
/// The kernel's limits of an attribute and of a list of their names.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// What is decided on the way of a copy.
pub(super) trait Manner {
    /// Whether a file, or a folder, keeps the attribute of that name.
    fn keeps(&self, _attribute: &[u8], _is_folder: bool) -> bool {
        true
    }
    /// So many bytes come next, or a file that takes about as many. An error ends the copy.
    fn make_room(&mut self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

/// All of it, on a disk of which nothing is held back.
pub(super) struct AsItIs;

impl Manner for AsItIs {}

/// What a file takes whatever is in it.
pub(super) const ENTRY_BYTES: u64 = 4096;

/// Copies the folder `from`, in which nothing changes meanwhile, to `to`, which is made. `links` is
/// a name beside it that nobody has; it is gone afterwards.
pub(super) fn tree(
    from: &Path,
    to: &Path,
    links: &Path,
    manner: &mut impl Manner,
) -> io::Result<()> {
    std::fs::create_dir(to)?;
    std::fs::create_dir(links)?;
    let mut copier = Copier {
        to: openat(CWD, to, FOLDER, Mode::empty())?,
        links: openat(CWD, links, FOLDER, Mode::empty())?,
        linked: BTreeSet::new(),
        manner,
    };
    still::walk(from, &mut copier)?;
    std::fs::remove_dir_all(links)
}

struct Copier<'a, M> {
    /// The copy of the folder that is walked.
    to: OwnedFd,
    /// A name of each copy that gets more of them: its number.
    links: OwnedFd,
    linked: BTreeSet<u64>,
    manner: &'a mut M,
}

impl<M: Manner> Visit for Copier<'_, M> {
    fn entry(&mut self, folder: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()> {
        self.manner.make_room(ENTRY_BYTES)?;
        if is_folder(found) {
            // What else belongs to it comes once nothing is made in it any more.
            return Ok(mkdirat(&self.to, name, Mode::RWXU)?);
        }
        let has_more = found.st_nlink > 1;
        let number = found.st_ino.to_string();
        if has_more && self.linked.contains(&found.st_ino) {
            return Ok(linkat(
                &self.links,
                number,
                &self.to,
                name,
                AtFlags::empty(),
            )?);
        }
        self.make(folder, name, found)?;
        dress(folder, &self.to, name, found, self.manner)?;
        if has_more {
            linkat(&self.to, name, &self.links, number, AtFlags::empty())?;
            self.linked.insert(found.st_ino);
        }
        Ok(())
    }

    fn enter(&mut self, name: &CStr) -> io::Result<()> {
        self.to = openat(&self.to, name, FOLDER, Mode::empty())?;
        Ok(())
    }

    fn leave(&mut self, folder: &OwnedFd) -> io::Result<()> {
        dress(folder, &self.to, c".", &fstat(folder)?, self.manner)?;
        self.to = openat(&self.to, c"..", FOLDER, Mode::empty())?;
        Ok(())
    }
}

impl<M: Manner> Copier<'_, M> {
    fn make(&mut self, folder: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()> {
        let kind = FileType::from_raw_mode(found.st_mode);
        match kind {
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = openat(folder, name, read, Mode::empty())?;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let to = openat(&self.to, name, write, Mode::RUSR | Mode::WUSR)?;
                fill(&from.into(), &to.into(), found, self.manner)
            }
            FileType::Symlink => {
                let target = readlinkat(folder, name, Vec::new())?;
                Ok(symlinkat(&target, &self.to, name)?)
            }
            _ => Ok(mknodat(&self.to, name, kind, Mode::RUSR, found.st_rdev)?),
        }
    }
}

fn fill(from: &File, to: &File, found: &Stat, manner: &mut impl Manner) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut piece = vec![0; PIECE];
    each_run(from, found, PIECE, |at, length| {
        let piece = &mut piece[..length];
        from.read_exact_at(piece, at)?;
        manner.make_room(length as u64)?;
        to.write_all_at(piece, at)
    })?;
    Ok(ftruncate(to, u64::try_from(found.st_size).unwrap_or(0))?)
}

/// Tells where a file's content lies between its holes: offsets and lengths, none longer than `most`.
pub(super) fn each_run(
    file: &File,
    found: &Stat,
    most: usize,
    mut tell: impl FnMut(u64, usize) -> io::Result<()>,
) -> io::Result<()> {
    let length = u64::try_from(found.st_size).unwrap_or(0);
    let mut at = 0;
    while at < length {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // A hole up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = seek(file, SeekFrom::Hole(data))?.min(length);
        at = data;
        while at < hole {
            let next = usize::try_from(hole - at).map_or(most, |left| left.min(most));
            tell(at, next)?;
            at += next as u64;
        }
        at = hole;
    }
    Ok(())
}

/// Gives a copy what belongs to a file beside its content, in the order in which none takes
/// another away again: a new owner loses set-user-id and capabilities.
fn dress(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &CStr,
    found: &Stat,
    manner: &impl Manner,
) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
    chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let keeps = |attribute: &[u8]| manner.keeps(attribute, is_folder(found));
    each_attribute(from, name, keeps, |attribute, value| {
        set_attribute(to, name, attribute, value)
    })?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
        let mode = Mode::from_raw_mode(found.st_mode & 0o7777);
        chmodat(to, name, mode, AtFlags::empty())?;
    }
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(found.st_atime, found.st_atime_nsec),
        last_modification: time(found.st_mtime, found.st_mtime_nsec),
    };
    Ok(utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// No call takes attributes of a link or a device by folder and name.
fn path_of(folder: &OwnedFd, name: &CStr) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    Ok(CString::new(path)?)
}

/// Tells the attributes that are `wanted`, in order of their names.
pub(super) fn each_attribute(
    folder: &OwnedFd,
    name: &CStr,
    wanted: impl Fn(&[u8]) -> bool,
    mut tell: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let path = path_of(folder, name)?;
    let mut names = vec![0; ATTRIBUTE_BYTES_MAX];
    let length = match llistxattr(&path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let names = names[..length].split(|byte| *byte == 0);
    let mut names: Vec<&[u8]> = names
        .filter(|name| !name.is_empty() && wanted(name))
        .collect();
    names.sort_unstable();
    let mut value = Vec::new();
    for name in names {
        value.resize(ATTRIBUTE_BYTES_MAX, 0);
        let length = lgetxattr(&path, OsStr::from_bytes(name), &mut value[..])?;
        tell(name, &value[..length])?;
    }
    Ok(())
}

pub(super) fn set_attribute(
    folder: &OwnedFd,
    name: &CStr,
    attribute: &[u8],
    value: &[u8],
) -> io::Result<()> {
    let (path, attribute) = (path_of(folder, name)?, OsStr::from_bytes(attribute));
    Ok(lsetxattr(&path, attribute, value, XattrFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn names_modes_holes_and_depth_are_as_they_were() {
        let home = std::env::temp_dir().join(format!("casemate-copy-{}", std::process::id()));
        let (from, to) = (home.join("from"), home.join("to"));
        std::fs::create_dir_all(from.join("folder")).unwrap();
        std::fs::write(from.join("folder/file"), "content").unwrap();
        std::fs::hard_link(from.join("folder/file"), from.join("hard")).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o500);
        std::fs::set_permissions(from.join("folder"), mode).unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.write_all_at(b"middle", 1 << 20).unwrap();
        sparse.set_len(8 << 20).unwrap();
        let mut at = openat(CWD, &from, FOLDER, Mode::empty()).unwrap();
        for _ in 0..2500 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", FOLDER, Mode::empty()).unwrap();
        }
        tree(&from, &to, &home.join("links"), &mut AsItIs).unwrap();
        assert!(!home.join("links").exists());
        let of = |path: &str| std::fs::symlink_metadata(to.join(path)).unwrap();
        assert_eq!(of("folder").mode() & 0o7777, 0o500);
        assert_eq!(
            (of("hard").ino(), of("hard").nlink()),
            (of("folder/file").ino(), 2)
        );
        assert_eq!(std::fs::read_to_string(to.join("hard")).unwrap(), "content");
        assert_eq!(
            std::fs::read_link(to.join("link")).unwrap(),
            Path::new("/etc/passwd")
        );
        let (copy, first) = (
            of("sparse"),
            std::fs::metadata(from.join("sparse")).unwrap(),
        );
        assert_eq!(
            (copy.len(), copy.mtime_nsec()),
            (first.len(), first.mtime_nsec())
        );
        assert!(copy.blocks() * 512 < 1 << 20);
        assert_eq!(
            std::fs::read(to.join("sparse")).unwrap()[1 << 20..][..6],
            *b"middle"
        );
        let mut depth = 0;
        let mut at = openat(CWD, &to, FOLDER, Mode::empty()).unwrap();
        while let Ok(next) = openat(&at, "d", FOLDER, Mode::empty()) {
            (at, depth) = (next, depth + 1);
        }
        assert_eq!(depth, 2500);
        assert!(still::bytes_below(&to).unwrap() < 32 << 20);
        drop(at);
        for layer in ["from", "to"] {
            let writable = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(home.join(layer).join("folder"), writable).unwrap();
            plain_delete(&home, layer);
        }
        std::fs::remove_dir_all(home).unwrap();
    }

    fn plain_delete(folder: &Path, name: &str) {
        use super::super::{Layers, plain::Plain};
        Plain.delete(folder, name).unwrap();
    }
}
