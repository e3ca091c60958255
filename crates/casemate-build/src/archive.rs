//! Root file systems as one file: tar, plain or compressed by gzip or zstd.
//!
//! Both directions are ours (on the `tar` crate) and not GNU tar's: unpacking resolves every path
//! beneath an open folder and never through a link, so that an archive cannot write outside
//! whatever it says, and both work on a host without the programs.

mod entry;
mod pack;
mod unpack;

#[cfg(test)]
mod tests;

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

pub use pack::pack;
pub use unpack::{Unpacked, unpack};

/// Entries of an archive at most; beyond it unpacking stops with an error.
pub const ENTRIES_MAX: u64 = 4_000_000;
/// Bytes of all files of an archive at most (64 GiB); beyond it unpacking stops with an error.
pub const BYTES_MAX: u64 = 64 << 30;
/// Sandboxes have ids 0 to 65535; a file of another owner could not be theirs.
pub const OWNER_MAX: u64 = 65_535;
/// The largest header file (see [`unpack`]); beyond it the entry is an error.
pub const HEADER_BYTES_MAX: u64 = 1 << 20;

/// Bytes that hold our own facts about the archive, as its first entry.
pub const HEADER_NAME: &str = "casemate-template.json";

/// What went wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("open archive {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read archive")]
    Read(#[source] io::Error),
    #[error("write archive")]
    Write(#[source] io::Error),
    #[error("read {} for the archive", path.display())]
    Source {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("unpack {path:?}")]
    Entry {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("archive has the path {path:?}, which {reason}")]
    Path { path: String, reason: &'static str },
    #[error("archive has an entry of kind {kind} at {path:?}")]
    Kind { path: String, kind: String },
    #[error("{path:?} belongs to id {id}; sandboxes have 0 to 65535")]
    Owner { path: String, id: u64 },
    #[error("archive is larger than {limit} {unit}")]
    TooLarge { limit: u64, unit: &'static str },
    #[error("archive holds no files")]
    Empty,
}

/// How an archive is compressed; reading finds out by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the ending of an archive's name; `None`: it is not one of ours.
    pub fn by_name(name: &str) -> Option<Self> {
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".tar"]) {
            Some(Self::None)
        } else if ends(&[".tar.gz", ".tgz"]) {
            Some(Self::Gzip)
        } else if ends(&[".tar.zst", ".tzst"]) {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

/// The plain tar stream of an archive, whatever compresses it.
pub fn decompress<'a>(input: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ArchiveError> {
    let mut input = BufReader::with_capacity(1 << 17, input);
    let start = input.fill_buf().map_err(ArchiveError::Read)?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(ArchiveError::Read)?)
        }
        _ => Box::new(input),
    })
}

/// Reads only our header of an archive: `None` when it was made by somebody else.
pub fn peek_header(input: impl Read) -> Result<Option<Vec<u8>>, ArchiveError> {
    let mut archive = tar::Archive::new(decompress(input)?);
    let mut entries = archive.entries().map_err(ArchiveError::Read)?;
    match entries.next() {
        None => Err(ArchiveError::Empty),
        Some(entry) => unpack::header_of(&mut entry.map_err(ArchiveError::Read)?),
    }
}
