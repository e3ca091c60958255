//! Reading the files of a selection once, in order, for the hash and for whoever wants the bytes.
//!
//! The hash is E2B's (`COPY source destination`, then of each file path, mode, size and content
//! without anything between them): a key that the server takes as it is.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::error::ContextError;
use crate::select::Selection;

/// What lies at a path.
pub(crate) enum Found<'r> {
    Folder,
    Link(PathBuf),
    /// As many bytes as the metadata say.
    File(&'r mut dyn Read),
    /// A socket, pipe or device. It counts for the hash, as with the SDK, and goes nowhere.
    Other,
}

/// Takes what is found.
pub(crate) trait Visitor {
    /// Must read a file to its end.
    fn visit(&mut self, path: &str, metadata: &Metadata, found: Found<'_>) -> io::Result<()>;
}

impl Selection<'_> {
    /// Reads all files, and answers their hash.
    pub(crate) fn visit(&self, visitor: &mut impl Visitor) -> Result<String, ContextError> {
        let mut hash = Sha256::new();
        hash.update(format!("COPY {} {}", self.source, self.destination));
        for path in &self.paths {
            let full = self.context.root.join(path);
            let read = |source| ContextError::Read {
                path: full.clone(),
                source,
            };
            hash.update(if path.is_empty() { "." } else { path });
            let metadata = fs::symlink_metadata(&full).map_err(read)?;
            if metadata.is_file() {
                let file = open(&full).map_err(read)?;
                // Of the file that was opened, should it be another by now.
                let metadata = file.metadata().map_err(read)?;
                if !metadata.is_file() {
                    return Err(self.changed());
                }
                state(&mut hash, &metadata);
                let mut content = Content {
                    file: file.take(metadata.len()),
                    hash: &mut hash,
                };
                let visited = visitor.visit(path, &metadata, Found::File(&mut content));
                visited.map_err(|source| ContextError::Write { source })?;
                if content.file.limit() > 0 {
                    return Err(self.changed());
                }
                continue;
            }
            state(&mut hash, &metadata);
            let found = if metadata.is_dir() {
                Found::Folder
            } else if metadata.is_symlink() {
                let target = fs::read_link(&full).map_err(read)?;
                hash.update(target.as_os_str().as_bytes());
                Found::Link(target)
            } else {
                Found::Other
            };
            let visited = visitor.visit(path, &metadata, found);
            visited.map_err(|source| ContextError::Write { source })?;
        }
        Ok(hex::encode(hash.finalize()))
    }

    pub(crate) fn changed(&self) -> ContextError {
        ContextError::Changed {
            source_path: self.source.clone(),
        }
    }
}

/// Mode and size as decimal digits. What a folder's size is, its file system says.
fn state(hash: &mut Sha256, metadata: &Metadata) {
    hash.update(metadata.mode().to_string());
    if !metadata.is_dir() {
        hash.update(metadata.len().to_string());
    }
}

/// A pipe that took a file's place must not hold us up, nor a link lead out of the context.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

struct Content<'h> {
    file: io::Take<File>,
    hash: &'h mut Sha256,
}

impl Read for Content<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.hash.update(&into[..count]);
        Ok(count)
    }
}
