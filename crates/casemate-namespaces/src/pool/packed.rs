//! The form of a tree in a stream: how what was sealed or kept leaves its machine.
//!
//! ```text
//! stream  = MAGIC folder END
//! folder  = record… (ENTER name folder)… LEAVE dress
//! record  = FILE name number length (offset bytes)… NO_MORE dress
//!         | LINK name number                     one more name of that file
//!         | SYMLINK name target dress
//!         | FIFO name dress | SOCKET name dress | WHITEOUT name dress
//! dress   = uid gid mode mtime_s mtime_ns (attribute value)… ""
//! ```
//!
//! Numbers are little-endian; names and targets begin with their length in two bytes, values and runs
//! with theirs in four. There is no path in it, so nothing can lead out of the tree. Records stand in
//! order of names, folders after all else, and no time of access is in it: what did not change gives
//! the same bytes again, of which a bucket needs one copy only.
//!
//! Devices have no room in it: a sandbox can use none that lies in its files.

use std::io::{self, Read, Write};

pub(super) const MAGIC: &[u8; 8] = b"cmtree1\n";

pub(super) const FILE: u8 = b'f';
pub(super) const LINK: u8 = b'h';
pub(super) const SYMLINK: u8 = b'l';
pub(super) const FIFO: u8 = b'p';
pub(super) const SOCKET: u8 = b's';
pub(super) const WHITEOUT: u8 = b'w';
pub(super) const ENTER: u8 = b'(';
pub(super) const LEAVE: u8 = b')';
pub(super) const END: u8 = b'.';

/// In place of the length of a file's next run.
pub(super) const NO_MORE: u32 = 0;
/// Bytes of a run at most.
pub(super) const RUN_MAX: usize = 256 << 10;
/// The kernel's limits.
pub(super) const NAME_MAX: usize = 255;
pub(super) const TARGET_MAX: usize = 4095;
pub(super) const ATTRIBUTE_NAME_MAX: usize = 255;
pub(super) const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// Whether an attribute travels. Of the overlay's those that lower layers need (see
/// [`super::sealed`]); what files show their programs; nothing that is of this machine, as labels are.
pub(super) fn travels(attribute: &[u8], is_folder: bool) -> bool {
    if attribute.starts_with(b"trusted.overlay.") {
        return super::sealed::is_for_lower_layers(attribute, is_folder);
    }
    attribute.starts_with(b"user.")
        || matches!(
            attribute,
            b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
        )
}

/// A stream that is written.
pub(super) struct Sink<W>(pub(super) W);

impl<W: Write> Sink<W> {
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub(super) fn tag(&mut self, tag: u8) -> io::Result<()> {
        self.bytes(&[tag])
    }

    pub(super) fn u32(&mut self, number: u32) -> io::Result<()> {
        self.bytes(&number.to_le_bytes())
    }

    pub(super) fn u64(&mut self, number: u64) -> io::Result<()> {
        self.bytes(&number.to_le_bytes())
    }

    pub(super) fn i64(&mut self, number: i64) -> io::Result<()> {
        self.bytes(&number.to_le_bytes())
    }

    pub(super) fn text(&mut self, text: &[u8]) -> io::Result<()> {
        let length = u16::try_from(text.len()).map_err(io::Error::other)?;
        self.bytes(&length.to_le_bytes())?;
        self.bytes(text)
    }
}

/// A stream that is read. Nobody is believed: what it names is bounded before it is read.
pub(super) struct Source<R>(pub(super) R);

impl<R: Read> Source<R> {
    pub(super) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn tag(&mut self) -> io::Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> io::Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn text(&mut self, max: usize) -> io::Result<Vec<u8>> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        self.filled(length, max)
    }

    pub(super) fn value(&mut self) -> io::Result<Vec<u8>> {
        let length = self.length(ATTRIBUTE_BYTES_MAX)?;
        self.filled(length, ATTRIBUTE_BYTES_MAX)
    }

    pub(super) fn length(&mut self, max: usize) -> io::Result<usize> {
        let length = usize::try_from(self.u32()?).map_err(io::Error::other)?;
        bounded(length, max)
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(bytes)
    }

    fn filled(&mut self, length: usize, max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; bounded(length, max)?];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn bounded(length: usize, max: usize) -> io::Result<usize> {
    match length <= max {
        true => Ok(length),
        false => Err(wrong("something is longer than it can be")),
    }
}

/// It is no tree of ours.
pub(super) fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
