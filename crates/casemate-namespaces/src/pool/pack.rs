//! A tree written to a stream, in the form of [`super::packed`].

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};

use super::copy::{each_attribute, each_run};
use super::packed::{self, Sink};
use super::still::{self, Order, Visit, is_folder};

/// Writes the folder `from`, in which nothing changes meanwhile.
pub(super) fn tree(from: &Path, to: impl Write) -> io::Result<()> {
    let mut sink = Sink(BufWriter::with_capacity(packed::RUN_MAX, to));
    sink.bytes(packed::MAGIC)?;
    let mut packer = Packer {
        sink,
        numbers: HashMap::new(),
        piece: vec![0; packed::RUN_MAX],
    };
    still::walk_in(from, Order::ByName, &mut packer)?;
    packer.sink.tag(packed::END)?;
    packer.sink.0.flush()
}

struct Packer<W> {
    sink: Sink<W>,
    /// Of files with more names than one, by their numbers on the disk, those that they have here.
    numbers: HashMap<u64, u64>,
    piece: Vec<u8>,
}

impl<W: Write> Visit for Packer<W> {
    fn entry(&mut self, folder: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()> {
        match FileType::from_raw_mode(found.st_mode) {
            // Told when it is entered.
            FileType::Directory => Ok(()),
            FileType::RegularFile => self.file(folder, name, found),
            FileType::Symlink => {
                self.begin(packed::SYMLINK, name)?;
                let target = readlinkat(folder, name, Vec::new())?;
                self.sink.text(target.to_bytes())?;
                self.dress(folder, name, found)
            }
            FileType::Fifo => self.plain(packed::FIFO, folder, name, found),
            FileType::Socket => self.plain(packed::SOCKET, folder, name, found),
            FileType::CharacterDevice if found.st_rdev == 0 => {
                self.plain(packed::WHITEOUT, folder, name, found)
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => Ok(()),
        }
    }

    fn enter(&mut self, name: &CStr) -> io::Result<()> {
        self.begin(packed::ENTER, name)
    }

    fn leave(&mut self, folder: &OwnedFd) -> io::Result<()> {
        self.sink.tag(packed::LEAVE)?;
        self.dress(folder, c".", &fstat(folder)?)
    }
}

impl<W: Write> Packer<W> {
    fn begin(&mut self, tag: u8, name: &CStr) -> io::Result<()> {
        self.sink.tag(tag)?;
        self.sink.text(name.to_bytes())
    }

    fn plain(&mut self, tag: u8, folder: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()> {
        self.begin(tag, name)?;
        self.dress(folder, name, found)
    }

    fn file(&mut self, folder: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()> {
        let mut number = 0;
        if found.st_nlink > 1 {
            if let Some(number) = self.numbers.get(&found.st_ino).copied() {
                self.begin(packed::LINK, name)?;
                return self.sink.u64(number);
            }
            number = self.numbers.len() as u64 + 1;
            self.numbers.insert(found.st_ino, number);
        }
        self.begin(packed::FILE, name)?;
        self.sink.u64(number)?;
        self.sink.u64(u64::try_from(found.st_size).unwrap_or(0))?;
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(folder, name, read, Mode::empty())?);
        let Self { sink, piece, .. } = self;
        each_run(&file, found, piece.len(), |at, length| {
            let piece = &mut piece[..length];
            file.read_exact_at(piece, at)?;
            sink.u32(u32::try_from(length).map_err(io::Error::other)?)?;
            sink.u64(at)?;
            sink.bytes(piece)
        })?;
        self.sink.u32(packed::NO_MORE)?;
        self.dress(folder, name, found)
    }

    fn dress(&mut self, folder: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()> {
        let sink = &mut self.sink;
        sink.u32(found.st_uid)?;
        sink.u32(found.st_gid)?;
        sink.u32(found.st_mode & 0o7777)?;
        sink.i64(found.st_mtime)?;
        sink.u32(u32::try_from(found.st_mtime_nsec).unwrap_or(0))?;
        let travels = |attribute: &[u8]| packed::travels(attribute, is_folder(found));
        each_attribute(folder, name, travels, |attribute, value| {
            sink.text(attribute)?;
            sink.u32(u32::try_from(value.len()).map_err(io::Error::other)?)?;
            sink.bytes(value)
        })?;
        sink.text(b"")
    }
}
