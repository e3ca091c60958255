//! Archive → folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timestamps, XattrFlags};
use tar::{Entry, EntryType};

use super::entry::{Facts, attributes_of, facts_of, kind_error, link_of, parts_of};
use super::{ArchiveError, BYTES_MAX, ENTRIES_MAX, HEADER_BYTES_MAX, HEADER_NAME, decompress};

/// What came out of an archive.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub entries: u64,
    pub bytes: u64,
    /// Device nodes and fifos; they are left out, a sandbox gets its own `/dev`.
    pub skipped: u64,
    /// Our header, when the archive starts with it. It is not unpacked.
    pub header: Option<Vec<u8>>,
}

/// Unpacks an archive of a whole root file system into the empty folder `into`, with owners,
/// modes, times, hard links and the attributes `security.capability` and `user.*`.
///
/// # Errors
/// Paths with `..`, paths that lead through a link and links to outside are refused, and what was
/// unpacked until then stays: `into` is a draft that the caller drops.
pub fn unpack(input: impl Read, into: &Path) -> Result<Unpacked, ArchiveError> {
    let root = File::open(into).map_err(|source| ArchiveError::Open {
        path: into.into(),
        source,
    })?;
    let mut tree = Tree {
        root: root.into(),
        parent: None,
        folder_times: Vec::new(),
    };
    let mut archive = tar::Archive::new(decompress(input)?);
    let mut done = Unpacked::default();
    for entry in archive.entries().map_err(ArchiveError::Read)? {
        let mut entry = entry.map_err(ArchiveError::Read)?;
        if done.entries == 0 && done.header.is_none() {
            done.header = header_of(&mut entry)?;
            if done.header.is_some() {
                continue;
            }
        }
        done.entries += 1;
        done.bytes = done.bytes.saturating_add(entry.size());
        check_size(&done)?;
        if !tree.place(&mut entry)? {
            done.skipped += 1;
        }
    }
    if done.entries == 0 {
        return Err(ArchiveError::Empty);
    }
    tree.finish()?;
    Ok(done)
}

/// The content of our header if `entry` is it.
pub(super) fn header_of<R: Read>(
    entry: &mut Entry<'_, R>,
) -> Result<Option<Vec<u8>>, ArchiveError> {
    if &*entry.path_bytes() != HEADER_NAME.as_bytes() || !entry.header().entry_type().is_file() {
        return Ok(None);
    }
    if entry.size() > HEADER_BYTES_MAX {
        let (limit, unit) = (HEADER_BYTES_MAX, "bytes of header");
        return Err(ArchiveError::TooLarge { limit, unit });
    }
    let mut content = Vec::new();
    entry
        .read_to_end(&mut content)
        .map_err(ArchiveError::Read)?;
    Ok(Some(content))
}

fn check_size(done: &Unpacked) -> Result<(), ArchiveError> {
    let (limit, unit) = if done.entries > ENTRIES_MAX {
        (ENTRIES_MAX, "entries")
    } else if done.bytes > BYTES_MAX {
        (BYTES_MAX, "bytes")
    } else {
        return Ok(());
    };
    Err(ArchiveError::TooLarge { limit, unit })
}

/// The folder being filled. All names are taken relative to open folders.
struct Tree {
    root: OwnedFd,
    /// The folder of the last entry: neighbours in an archive mostly share it.
    parent: Option<(Vec<OsString>, OwnedFd)>,
    /// Set at the end: every file that is added to a folder changes its time.
    folder_times: Vec<(Vec<OsString>, Timestamps)>,
}

impl Tree {
    /// Makes one entry; `false` when its kind is left out.
    fn place<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<bool, ArchiveError> {
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let parts = parts_of(&entry.path_bytes(), &shown)?;
        let facts = facts_of(entry, &shown)?;
        let failed = |source: io::Error| ArchiveError::Entry {
            path: shown.clone(),
            source,
        };
        let kind = entry.header().entry_type();
        let Some((name, folder)) = parts.split_last() else {
            return match kind {
                EntryType::Directory => {
                    apply(self.root.as_fd(), &facts).map_err(failed)?;
                    self.folder_times.push((parts, facts.times));
                    Ok(true)
                }
                _ => Err(kind_error(kind, shown)),
            };
        };
        match kind {
            EntryType::Directory => {
                let folder_fd = self.folder(folder).map_err(failed)?;
                make_folder(folder_fd, name, &facts).map_err(failed)?;
                self.folder_times.push((parts, facts.times));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let attributes = attributes_of(entry).map_err(failed)?;
                let folder_fd = self.folder(folder).map_err(failed)?;
                make_file(folder_fd, name, &facts, &attributes, entry).map_err(failed)?;
            }
            EntryType::Symlink => {
                let target = link_of(entry, &shown)?;
                let folder_fd = self.folder(folder).map_err(failed)?;
                make_symlink(folder_fd, name, &facts, &target).map_err(failed)?;
            }
            EntryType::Link => {
                let target = parts_of(&link_of(entry, &shown)?, &shown)?;
                self.make_link(folder, name, &target).map_err(failed)?;
            }
            EntryType::Block | EntryType::Char | EntryType::Fifo => return Ok(false),
            other => return Err(kind_error(other, shown)),
        }
        Ok(true)
    }

    fn make_link(
        &mut self,
        folder: &[OsString],
        name: &OsStr,
        target: &[OsString],
    ) -> io::Result<()> {
        let (target_name, target_folder) =
            target.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let from = open_beneath(self.root.as_fd(), target_folder)?;
        let folder_fd = self.folder(folder)?;
        clear(folder_fd, name)?;
        // Without AT_SYMLINK_FOLLOW the name itself is linked, also when it is a symbolic link.
        rustix::fs::linkat(
            &from,
            target_name.as_os_str(),
            folder_fd,
            name,
            AtFlags::empty(),
        )?;
        Ok(())
    }

    /// The open folder `parts`; missing ones are made, root's and 0755.
    fn folder(&mut self, parts: &[OsString]) -> io::Result<BorrowedFd<'_>> {
        let known = matches!(&self.parent, Some((path, _)) if path == parts);
        if !known {
            let fd = match open_beneath(self.root.as_fd(), parts) {
                Err(rustix::io::Errno::NOENT) => make_folders(self.root.as_fd(), parts)?,
                other => other?,
            };
            self.parent = Some((parts.to_vec(), fd));
        }
        let (_, fd) = self
            .parent
            .as_ref()
            .expect("set just above when it was not");
        Ok(fd.as_fd())
    }

    fn finish(self) -> Result<(), ArchiveError> {
        for (parts, times) in self.folder_times.iter().rev() {
            let set = || -> io::Result<()> {
                let fd = open_beneath(self.root.as_fd(), parts)?;
                Ok(rustix::fs::futimens(fd, times)?)
            };
            set().map_err(|source| ArchiveError::Entry {
                path: Path::new("/")
                    .join(parts.iter().collect::<std::path::PathBuf>())
                    .display()
                    .to_string(),
                source,
            })?;
        }
        Ok(())
    }
}

fn make_folders(root: BorrowedFd<'_>, parts: &[OsString]) -> io::Result<OwnedFd> {
    let mut fd = open_beneath(root, &[])?;
    for part in parts {
        let part = part.as_os_str();
        match rustix::fs::mkdirat(&fd, part, Mode::from_raw_mode(0o755)) {
            Ok(()) => rustix::fs::chmodat(&fd, part, Mode::from_raw_mode(0o755), AtFlags::empty())?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        fd = rustix::fs::openat(&fd, part, folder_flags(), Mode::empty())?;
    }
    Ok(fd)
}

fn make_folder(folder: BorrowedFd<'_>, name: &OsStr, facts: &Facts) -> io::Result<()> {
    match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    // O_NOFOLLOW: something that is no folder under this name is an error, not a way out.
    let fd = rustix::fs::openat(folder, name, folder_flags(), Mode::empty())?;
    apply(fd.as_fd(), facts)
}

fn make_file(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    facts: &Facts,
    attributes: &[(String, Vec<u8>)],
    content: &mut impl Read,
) -> io::Result<()> {
    clear(folder, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(fd);
    io::copy(content, &mut file)?;
    apply(file.as_fd(), facts)?;
    // After the owner: changing it takes file capabilities away.
    for (key, value) in attributes {
        rustix::fs::fsetxattr(&file, key.as_str(), value, XattrFlags::empty())?;
    }
    Ok(rustix::fs::futimens(&file, &facts.times)?)
}

fn make_symlink(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    facts: &Facts,
    target: &[u8],
) -> io::Result<()> {
    clear(folder, name)?;
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::symlinkat(OsStr::from_bytes(target), folder, name)?;
    rustix::fs::chownat(folder, name, Some(facts.owner), Some(facts.group), nofollow)?;
    Ok(rustix::fs::utimensat(folder, name, &facts.times, nofollow)?)
}

/// Owner first: a change of owner clears the set-id bits of the mode.
fn apply(fd: BorrowedFd<'_>, facts: &Facts) -> io::Result<()> {
    rustix::fs::fchown(fd, Some(facts.owner), Some(facts.group))?;
    Ok(rustix::fs::fchmod(fd, facts.mode)?)
}

/// Takes away what stands under a name, unless it is a folder (then making the file fails).
fn clear(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(()),
        Ok(_) => Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?),
    }
}

fn open_beneath(root: BorrowedFd<'_>, parts: &[OsString]) -> rustix::io::Result<OwnedFd> {
    let mut path: std::path::PathBuf = parts.iter().collect();
    if parts.is_empty() {
        path.push(".");
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, &path, folder_flags(), Mode::empty(), resolve)
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}
