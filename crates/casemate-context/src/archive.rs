//! The hash of a selection, and its archive.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use crate::error::ContextError;
use crate::select::Selection;
use crate::visit::{Found, Visitor};

/// An archive as it goes to the server: tar with gzip, in a file that has no name and is gone with it.
#[derive(Debug)]
pub struct Archive {
    /// Read from its beginning.
    pub file: File,
    /// Its length.
    pub bytes: u64,
    /// Sockets, pipes and devices, which are not in it.
    pub left_out: Vec<String>,
}

impl Selection<'_> {
    /// How many files there are, folders and links counted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.paths.len()
    }

    /// The key by which the server knows these files, 64 hexadecimal digits.
    ///
    /// # Errors
    /// A file cannot be read, or changes meanwhile.
    pub fn hash(&self) -> Result<String, ContextError> {
        self.visit(&mut Drain)
    }

    /// Packs the files. Owners and times of access stay here; paths begin at the context.
    ///
    /// # Errors
    /// A file cannot be read, or the files are not those that `hash` is of any more: one key must not
    /// stand for other files.
    pub fn archive(&self, hash: &str) -> Result<Archive, ContextError> {
        let write = |source| ContextError::Write { source };
        let file = tempfile::tempfile().map_err(write)?;
        let gzip = GzEncoder::new(BufWriter::new(file), Compression::fast());
        let mut pack = Pack {
            tar: Builder::new(gzip),
            left_out: Vec::new(),
        };
        if self.visit(&mut pack)? != hash {
            return Err(self.changed());
        }
        let gzip = pack.tar.into_inner().map_err(write)?;
        let buffer = gzip.finish().map_err(write)?;
        let mut file = buffer
            .into_inner()
            .map_err(|failed| write(failed.into_error()))?;
        let bytes = file.stream_position().map_err(write)?;
        file.seek(SeekFrom::Start(0)).map_err(write)?;
        Ok(Archive {
            file,
            bytes,
            left_out: pack.left_out,
        })
    }
}

/// Wants nothing but that all was read.
struct Drain;

impl Visitor for Drain {
    fn visit(&mut self, _: &str, _: &Metadata, found: Found<'_>) -> io::Result<()> {
        if let Found::File(content) = found {
            io::copy(content, &mut io::sink())?;
        }
        Ok(())
    }
}

struct Pack {
    tar: Builder<GzEncoder<BufWriter<File>>>,
    left_out: Vec<String>,
}

impl Visitor for Pack {
    fn visit(&mut self, path: &str, metadata: &Metadata, found: Found<'_>) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_size(0);
        let path = if path.is_empty() { "." } else { path };
        match found {
            Found::Folder => {
                header.set_entry_type(EntryType::Directory);
                self.tar.append_data(&mut header, path, io::empty())
            }
            Found::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                self.tar.append_link(&mut header, path, target)
            }
            Found::File(content) => {
                header.set_size(metadata.len());
                // The entry must be as long as it says, or what follows is garbage; that the file
                // became shorter is found by the caller.
                let content = content.chain(io::repeat(0)).take(metadata.len());
                self.tar.append_data(&mut header, path, content)
            }
            Found::Other => {
                self.left_out.push(path.to_owned());
                Ok(())
            }
        }
    }
}
