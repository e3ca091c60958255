//! A tree made of a stream, in the form of [`super::packed`]. We are root and the stream may come
//! from another machine: each name is one of a folder that only we know, no link is followed, and
//! nothing is made that a sandbox could not have made.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat,
    ftruncate, linkat, mkdirat, mknodat, openat, symlinkat, utimensat,
};

use super::copy::{ENTRY_BYTES, Manner, set_attribute};
use super::packed::{self, Source, wrong};
use super::still::FOLDER;

/// Reads a whole stream into the folder `to`, which is made. `links` is a name beside it that nobody
/// has; it is gone afterwards. `InvalidData`: it is no tree of ours; what is there by then is the
/// caller's to delete.
pub(super) fn tree(
    from: impl Read,
    to: &Path,
    links: &Path,
    manner: &mut impl Manner,
) -> io::Result<()> {
    let mut source = Source(BufReader::with_capacity(packed::RUN_MAX, from));
    if source.array()? != *packed::MAGIC {
        return Err(wrong("it does not begin as a tree does"));
    }
    std::fs::create_dir(to)?;
    std::fs::create_dir(links)?;
    let mut unpacker = Unpacker {
        source,
        to: openat(CWD, to, FOLDER, Mode::empty())?,
        depth: 0,
        links: openat(CWD, links, FOLDER, Mode::empty())?,
        linked: BTreeSet::new(),
        piece: vec![0; packed::RUN_MAX],
        manner,
    };
    unpacker.all()?;
    std::fs::remove_dir_all(links)
}

struct Unpacker<'a, R, M> {
    source: Source<R>,
    /// The folder that is being filled.
    to: OwnedFd,
    /// How deep it lies.
    depth: usize,
    /// A name of each file that gets more of them: its number.
    links: OwnedFd,
    linked: BTreeSet<u64>,
    piece: Vec<u8>,
    manner: &'a mut M,
}

impl<R: Read, M: Manner> Unpacker<'_, R, M> {
    fn all(&mut self) -> io::Result<()> {
        loop {
            self.manner.make_room(ENTRY_BYTES)?;
            match self.source.tag()? {
                packed::FILE => self.file()?,
                packed::LINK => {
                    let (name, number) = (self.name()?, self.source.u64()?);
                    if !self.linked.contains(&number) {
                        return Err(wrong("one more name of no file"));
                    }
                    let none = AtFlags::empty();
                    linkat(&self.links, number.to_string(), &self.to, name, none)?;
                }
                packed::SYMLINK => {
                    let name = self.name()?;
                    let target = self.source.text(packed::TARGET_MAX)?;
                    symlinkat(target, &self.to, &name)?;
                    self.dress(&name, FileType::Symlink)?;
                }
                packed::FIFO => self.node(FileType::Fifo)?,
                packed::SOCKET => self.node(FileType::Socket)?,
                packed::WHITEOUT => self.node(FileType::CharacterDevice)?,
                packed::ENTER => {
                    let name = self.name()?;
                    mkdirat(&self.to, &name, Mode::RWXU)?;
                    self.to = openat(&self.to, &name, FOLDER, Mode::empty())?;
                    self.depth += 1;
                }
                packed::LEAVE => {
                    self.dress(c".", FileType::Directory)?;
                    if self.depth == 0 {
                        break;
                    }
                    self.to = openat(&self.to, c"..", FOLDER, Mode::empty())?;
                    self.depth -= 1;
                }
                _ => return Err(wrong("a record of no kind")),
            }
        }
        match self.source.tag()? {
            packed::END => Ok(()),
            _ => Err(wrong("more than a tree")),
        }
    }

    /// Of something in a folder: one that leads nowhere else.
    fn name(&mut self) -> io::Result<CString> {
        let name = self.source.text(packed::NAME_MAX)?;
        if matches!(&name[..], b"" | b"." | b"..") || name.contains(&b'/') {
            return Err(wrong("a name that is none"));
        }
        CString::new(name).map_err(|_| wrong("a name that is none"))
    }

    fn node(&mut self, kind: FileType) -> io::Result<()> {
        let name = self.name()?;
        // Of no device: it hides what lies below.
        mknodat(&self.to, &name, kind, Mode::RUSR, 0)?;
        self.dress(&name, kind)
    }

    fn file(&mut self) -> io::Result<()> {
        let (name, number, length) = (self.name()?, self.source.u64()?, self.source.u64()?);
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = File::from(openat(&self.to, &name, write, Mode::RUSR | Mode::WUSR)?);
        let mut end = 0;
        loop {
            let run = self.source.length(packed::RUN_MAX)?;
            if run == 0 {
                break;
            }
            let at = self.source.u64()?;
            let after = at.checked_add(run as u64);
            let after = after.filter(|after| at >= end && *after <= length);
            end = after.ok_or_else(|| wrong("a run that is not in its file"))?;
            self.manner.make_room(run as u64)?;
            let piece = &mut self.piece[..run];
            self.source.fill(piece)?;
            file.write_all_at(piece, at)?;
        }
        ftruncate(&file, length)?;
        drop(file);
        self.dress(&name, FileType::RegularFile)?;
        if number != 0 {
            if !self.linked.insert(number) {
                return Err(wrong("a number of two files"));
            }
            let none = AtFlags::empty();
            linkat(&self.to, &name, &self.links, number.to_string(), none)?;
        }
        Ok(())
    }

    /// In the order in which none takes another away again: a new owner loses set-user-id and
    /// capabilities.
    fn dress(&mut self, name: &CStr, kind: FileType) -> io::Result<()> {
        let (uid, gid) = (self.source.u32()?, self.source.u32()?);
        if uid == u32::MAX || gid == u32::MAX {
            return Err(wrong("an owner that is none"));
        }
        let mode = self.source.u32()?;
        let mtime = Timespec {
            tv_sec: self.source.i64()?,
            tv_nsec: self.source.u32()?.min(999_999_999).into(),
        };
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let as_it_is = AtFlags::SYMLINK_NOFOLLOW;
        chownat(&self.to, name, Some(uid), Some(gid), as_it_is)?;
        loop {
            let attribute = self.source.text(packed::ATTRIBUTE_NAME_MAX)?;
            if attribute.is_empty() {
                break;
            }
            let value = self.source.value()?;
            if !packed::travels(&attribute, kind == FileType::Directory) {
                return Err(wrong("an attribute that does not travel"));
            }
            set_attribute(&self.to, name, &attribute, &value)?;
        }
        if kind != FileType::Symlink {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            chmodat(&self.to, name, mode, AtFlags::empty())?;
        }
        let times = Timestamps {
            last_access: mtime,
            last_modification: mtime,
        };
        Ok(utimensat(&self.to, name, &times, as_it_is)?)
    }
}
