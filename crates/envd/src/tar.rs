//! Reading tar streams (writing: [`pack`]): ustar, GNU and PAX, from whoever made them.
//!
//! Our own reader, because each number and each header of a hostile archive must have a bound, and
//! sparse files come in four forms. It knows nothing of file systems: names are bytes as they are.
//!
//! Formats: POSIX.1-2017 (`pax`), and the manual of GNU tar ("Basic Tar Format", "Storing Sparse
//! Files").

mod header;
pub mod pack;
mod pax;
mod sparse;

use std::io::{self, Read};

use crate::limits::{BUILD_ENTRIES, PATH_BYTES, TAR_EXTENSION_BYTES};
use header::{Block, Magic};
use pax::Pax;
pub use sparse::Sparse;

const BLOCK: usize = 512;

#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("read the archive: {0}")]
    Read(#[source] io::Error),
    #[error("the archive is empty: it has not even an end")]
    Empty,
    #[error("the archive ends within an entry")]
    Truncated,
    #[error("not a tar archive, or a broken one: a header has a wrong checksum")]
    Checksum,
    #[error("a header of the archive has no valid {0}")]
    Field(&'static str),
    #[error("extended header of more than {TAR_EXTENSION_BYTES} bytes")]
    LongExtension,
    #[error("malformed extended header")]
    Extension,
    #[error("name of more than {PATH_BYTES} bytes")]
    LongName,
    #[error("malformed map of a sparse file")]
    Sparse,
    #[error("entry of unknown kind {:?}", char::from(*.0))]
    Kind(u8),
    #[error("more than {BUILD_ENTRIES} entries")]
    Entries,
}

/// Seconds and nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    /// The name of another entry.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Directory,
    Fifo,
    Device,
}

/// One entry, without its content.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Not empty, without NUL, shorter than [`PATH_BYTES`]; anything else is up to the reader.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// 12 bits.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub modified: Time,
    /// Name and value, as they are.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content belongs in a file with holes.
    pub sparse: Option<Sparse>,
}

/// An archive that is read once, from front to back.
pub struct Archive<R> {
    input: R,
    /// Of the content of the current entry.
    left: u64,
    /// To the next block, after the content.
    padding: u64,
    entries: u64,
    /// What holds for all entries from here on.
    global: Pax,
}

impl<R: Read> Archive<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
            entries: 0,
            global: Pax::default(),
        }
    }

    /// The next entry, whatever was read of the one before; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut local = self.global.clone();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip()?;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            if block.is_zero() {
                return Ok(None);
            }
            block.check()?;
            self.entries += 1;
            if self.entries > BUILD_ENTRIES {
                return Err(TarError::Entries);
            }
            match block.kind() {
                b'x' | b'X' => local.read(&self.extension(&block)?)?,
                b'g' => {
                    let extension = self.extension(&block)?;
                    self.global.read(&extension)?;
                    local = self.global.clone();
                }
                b'L' => long_name = Some(until_nul(self.extension(&block)?)),
                b'K' => long_link = Some(until_nul(self.extension(&block)?)),
                // The label of a volume.
                b'V' => self.enter(block.size()?)?,
                _ => return self.entry(&block, local, long_name, long_link).map(Some),
            }
        }
    }

    /// How much of the current content is left to read, in bytes.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The content of the entry that [`Archive::next_entry`] gave last; an archive that ends too
    /// early is an error.
    pub fn content(&mut self) -> Content<'_, R> {
        Content { archive: self }
    }

    /// Reads what follows the end of the archive, so that whoever packed it notices a broken tail.
    pub fn finish(mut self) -> Result<(), TarError> {
        io::copy(&mut self.input, &mut io::sink()).map_err(TarError::Read)?;
        Ok(())
    }

    fn entry(
        &mut self,
        block: &Block,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let path = pax
            .path
            .or(long_name)
            .unwrap_or_else(|| block.path())
            .to_vec();
        let link = || checked(pax.link.or(long_link).unwrap_or_else(|| block.link()));
        let code = block.kind();
        let kind = match code {
            0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink(link()?),
            b'2' => Kind::Symlink(link()?),
            b'3' | b'4' => Kind::Device,
            b'6' => Kind::Fifo,
            b'5' => Kind::Directory,
            other => return Err(TarError::Kind(other)),
        };
        // Links, folders and devices have no content, whatever their header says.
        let mut size = 0;
        if kind == Kind::File {
            size = match pax.size {
                Some(size) => size,
                None => block.size()?,
            };
        }
        let mut sparse = None;
        let mut blocks = Vec::new();
        if code == b'S' && block.magic() == Magic::Gnu {
            let mut more = block.sparse_goes_on();
            while more {
                let next = self.block()?.ok_or(TarError::Truncated)?;
                more = next.sparse_block_goes_on();
                blocks.push(next);
                sparse::check_count(blocks.len())?;
            }
            sparse = Some(Sparse::of_headers(block, &blocks)?);
        }
        self.enter(size)?;
        if kind == Kind::File && pax.sparse.is_used() {
            sparse = Some(pax.sparse.map(&mut self.content())?);
        }
        if let Some(sparse) = &sparse {
            sparse.check(self.left)?;
        }
        Ok(Entry {
            path: checked(pax.sparse.name.unwrap_or(path))?,
            kind,
            mode: block.mode()?,
            uid: pax.uid.map_or_else(|| block.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| block.gid(), Ok)?,
            modified: pax.modified.map_or_else(|| block.modified(), Ok)?,
            attributes: pax.attributes,
            sparse,
        })
    }

    fn enter(&mut self, size: u64) -> Result<(), TarError> {
        // No file is longer, and sums of it and less stay numbers.
        if size > i64::MAX.unsigned_abs() {
            return Err(TarError::Field("size"));
        }
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(())
    }

    /// The whole content of a header that extends another.
    fn extension(&mut self, block: &Block) -> Result<Vec<u8>, TarError> {
        let size = block.size()?;
        if size > TAR_EXTENSION_BYTES {
            return Err(TarError::LongExtension);
        }
        self.enter(size)?;
        let mut all = Vec::new();
        self.content()
            .read_to_end(&mut all)
            .map_err(TarError::of_read)?;
        Ok(all)
    }

    /// To the next header.
    fn skip(&mut self) -> Result<(), TarError> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let mut rest_of_it = self.input.by_ref().take(rest);
        let skipped = io::copy(&mut rest_of_it, &mut io::sink()).map_err(TarError::Read)?;
        if skipped == rest {
            Ok(())
        } else {
            Err(TarError::Truncated)
        }
    }

    /// `None`: the archive ends here, between two entries.
    fn block(&mut self) -> Result<Option<Block>, TarError> {
        let mut bytes = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        Ok(Some(Block(bytes)))
    }
}

impl TarError {
    /// An error of [`Content`].
    pub fn of_read(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof if error.get_ref().is_none() => Self::Truncated,
            _ => Self::Read(error),
        }
    }
}

/// See [`Archive::content`].
pub struct Content<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Archive { input, left, .. } = &mut *self.archive;
        let most = usize::try_from(*left).map_or(into.len(), |left| left.min(into.len()));
        if most == 0 {
            return Ok(0);
        }
        let count = input.read(&mut into[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *left -= count as u64;
        Ok(count)
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// A name that the kernel could take.
fn checked(name: Vec<u8>) -> Result<Vec<u8>, TarError> {
    if name.len() >= PATH_BYTES {
        Err(TarError::LongName)
    } else if name.is_empty() || name.contains(&0) {
        Err(TarError::Field("name"))
    } else {
        Ok(name)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub mod write;
