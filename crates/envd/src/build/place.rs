//! Making one entry of an archive.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags, chownat, fchmod, fchown, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat,
    openat, openat2, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::error::BuildError;
use super::remove::remove;
use super::root::{Root, open_step, split};
use super::shown;
use crate::limits::{BUILD_NAME_BYTES, FILE_CHUNK_BYTES};
use crate::tar::{Archive, Entry, Kind, TarError, Time};

/// Where an entry goes.
pub struct Spot<'a> {
    pub folder: BorrowedFd<'a>,
    pub name: &'a CStr,
    /// `None`: whoever makes it.
    pub owner: Option<(Uid, Gid)>,
}

/// What became of an entry.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed {
    /// Anything but a folder; bytes of content.
    File(u64),
    Folder {
        /// Not there before.
        fresh: bool,
    },
    /// Another mount is in the way.
    LeftOut,
}

/// What is at a name.
pub enum Found {
    Nothing,
    Mount,
    Folder,
    Other,
}

pub fn look(folder: BorrowedFd<'_>, name: &CStr) -> Result<Found, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    match openat2(folder, name, flags, Mode::empty(), resolve) {
        Ok(found) => {
            let kind = FileType::from_raw_mode(fstat(found)?.st_mode);
            Ok(if kind.is_dir() {
                Found::Folder
            } else {
                Found::Other
            })
        }
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(Errno::XDEV) => Ok(Found::Mount),
        Err(error) => Err(error),
    }
}

/// Makes `entry`, in place of anything of another kind; a folder that is there is kept. Names of
/// hard links are looked up below `root`.
pub fn place<R: Read>(
    spot: &Spot<'_>,
    entry: &Entry,
    archive: &mut Archive<R>,
    root: &Root,
) -> Result<Placed, BuildError> {
    let failed = |source: io::Error| BuildError::write(&entry.path, source);
    let found = look(spot.folder, spot.name).map_err(|errno| failed(errno.into()))?;
    if matches!(found, Found::Mount) {
        return Ok(Placed::LeftOut);
    }
    let fresh = !matches!(found, Found::Folder);
    if entry.kind == Kind::Directory && !fresh {
        let folder = open_step(spot.folder, spot.name).map_err(|errno| failed(errno.into()))?;
        settle(&folder, spot.owner, entry).map_err(failed)?;
        return Ok(Placed::Folder { fresh });
    }
    let target = match &entry.kind {
        Kind::HardLink(target) => match linked(root, entry, target)? {
            Some(target) if target.is(spot).map_err(failed)? => return Ok(Placed::File(0)),
            Some(target) => Some(target),
            None => return Ok(Placed::LeftOut),
        },
        _ => None,
    };
    if !matches!(found, Found::Nothing) && !remove(spot.folder, spot.name).map_err(failed)? {
        return Ok(Placed::LeftOut);
    }
    match &entry.kind {
        Kind::Directory => {
            mkdirat(spot.folder, spot.name, Mode::RWXU).map_err(|errno| failed(errno.into()))?;
            let folder = open_step(spot.folder, spot.name).map_err(|errno| failed(errno.into()))?;
            settle(&folder, spot.owner, entry).map_err(failed)?;
            Ok(Placed::Folder { fresh })
        }
        Kind::File => file(spot, entry, archive).map(Placed::File),
        Kind::Symlink(to) => {
            link(spot, entry, to).map_err(failed)?;
            Ok(Placed::File(0))
        }
        Kind::HardLink(_) => {
            if let Some(Linked { folder, name, .. }) = &target {
                linkat(folder, name, spot.folder, spot.name, AtFlags::empty())
                    .map_err(|errno| failed(errno.into()))?;
            }
            Ok(Placed::File(0))
        }
        Kind::Fifo => {
            fifo(spot, entry).map_err(failed)?;
            Ok(Placed::File(0))
        }
        Kind::Device => Ok(Placed::LeftOut),
    }
}

fn file<R: Read>(
    spot: &Spot<'_>,
    entry: &Entry,
    archive: &mut Archive<R>,
) -> Result<u64, BuildError> {
    let failed = |source: io::Error| BuildError::write(&entry.path, source);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(spot.folder, spot.name, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| failed(errno.into()))?;
    let mut file = File::from(file);
    let mut bytes = 0;
    match &entry.sparse {
        None => bytes = pour(&mut file, u64::MAX, entry, archive)?,
        Some(sparse) => {
            for (offset, length) in &sparse.pieces {
                file.seek(SeekFrom::Start(*offset)).map_err(failed)?;
                bytes += pour(&mut file, *length, entry, archive)?;
            }
            file.set_len(sparse.length).map_err(failed)?;
        }
    }
    let file = OwnedFd::from(file);
    settle(&file, spot.owner, entry).map_err(failed)?;
    futimens(&file, &times(entry.modified)).map_err(|errno| failed(errno.into()))?;
    Ok(bytes)
}

/// Writes content at the current place, at most `most` bytes of it.
fn pour<R: Read>(
    file: &mut File,
    most: u64,
    entry: &Entry,
    archive: &mut Archive<R>,
) -> Result<u64, BuildError> {
    let expected = usize::try_from(archive.left().min(most)).unwrap_or(usize::MAX);
    // Most files are small: no more memory is cleared than they need.
    let mut buffer = vec![0; expected.min(FILE_CHUNK_BYTES)];
    let mut content = archive.content().take(most);
    let mut written = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match content.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::of_read(error).into()),
            }
        }
        if filled == 0 {
            return Ok(written);
        }
        file.write_all(&buffer[..filled])
            .map_err(|source| BuildError::write(&entry.path, source))?;
        written += filled as u64;
    }
}

/// Owner, mode and attributes of a file or folder. In this order: a change of the owner takes
/// set-id bits and capabilities away.
pub fn settle(file: &OwnedFd, owner: Option<(Uid, Gid)>, entry: &Entry) -> io::Result<()> {
    if let Some((user, group)) = owner {
        fchown(file, Some(user), Some(group))?;
    }
    fchmod(file, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in &entry.attributes {
        let wanted = name.starts_with(b"user.") || name == b"security.capability";
        if !wanted {
            continue;
        }
        match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            // A file system without them; engines go on as well.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn link(spot: &Spot<'_>, entry: &Entry, to: &[u8]) -> io::Result<()> {
    symlinkat(to, spot.folder, spot.name)?;
    if let Some((user, group)) = spot.owner {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(spot.folder, spot.name, Some(user), Some(group), flags)?;
    }
    let times = times(entry.modified);
    utimensat(spot.folder, spot.name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Pipes have no attributes of users.
fn fifo(spot: &Spot<'_>, entry: &Entry) -> io::Result<()> {
    mknodat(
        spot.folder,
        spot.name,
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )?;
    // For reading it opens though nobody writes.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = openat(spot.folder, spot.name, flags, Mode::empty())?;
    if let Some((user, group)) = spot.owner {
        fchown(&fifo, Some(user), Some(group))?;
    }
    fchmod(&fifo, Mode::from_raw_mode(entry.mode))?;
    Ok(futimens(&fifo, &times(entry.modified))?)
}

/// What a hard link leads to.
struct Linked {
    folder: OwnedFd,
    name: CString,
    id: (Dev, u64),
}

impl Linked {
    /// Whether the link is there already, or is one to itself.
    fn is(&self, spot: &Spot<'_>) -> io::Result<bool> {
        match rustix::fs::statat(spot.folder, spot.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok((stat.st_dev, stat.st_ino) == self.id),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// `None`: it is on another mount.
fn linked(root: &Root, entry: &Entry, target: &[u8]) -> Result<Option<Linked>, BuildError> {
    let failed = |errno: Errno| BuildError::write(&entry.path, errno);
    let missing = || BuildError::LinkTarget {
        path: shown(&entry.path),
        target: shown(target),
    };
    let Some((folder, name)) = split(target)? else {
        return Err(BuildError::entry(&entry.path, "a hard link to the root"));
    };
    let folder = match root.folder(&folder) {
        Ok(folder) => folder,
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing()),
        Err(Errno::XDEV) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    match look(folder.as_fd(), &name).map_err(failed)? {
        Found::Nothing => return Err(missing()),
        Found::Mount => return Ok(None),
        Found::Folder => {
            let why = "a hard link cannot lead to a folder";
            return Err(BuildError::entry(&entry.path, why));
        }
        Found::Other => {}
    }
    let stat = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    Ok(Some(Linked {
        folder,
        name,
        id: (stat.st_dev, stat.st_ino),
    }))
}

/// The time of change alone; when it was read last is nobody's business.
fn times(modified: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified.seconds,
            tv_nsec: modified.nanos.into(),
        },
    }
}

/// Times of folders, which are set when nothing more is put into them.
#[derive(Default)]
pub struct FolderTimes {
    times: Vec<(Vec<u8>, Time)>,
    name_bytes: usize,
}

impl FolderTimes {
    pub fn note(&mut self, path: Vec<u8>, time: Time) -> Result<(), BuildError> {
        self.charge(path.len())?;
        self.times.push((path, time));
        Ok(())
    }

    /// Counts a name that is kept here or elsewhere.
    pub fn charge(&mut self, bytes: usize) -> Result<(), BuildError> {
        self.name_bytes += bytes + size_of::<(Vec<u8>, Time)>();
        if self.name_bytes > BUILD_NAME_BYTES {
            return Err(BuildError::Names);
        }
        Ok(())
    }

    /// Sets them. A folder that a later entry replaced has none.
    pub fn set(&self, root: &Root) -> Result<(), BuildError> {
        for (path, time) in &self.times {
            match root.folder(path) {
                Ok(folder) => futimens(&folder, &times(*time))
                    .map_err(|errno| BuildError::write(path, errno))?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(errno) => return Err(BuildError::write(path, errno)),
            }
        }
        Ok(())
    }
}
