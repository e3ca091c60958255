//! Attributes and content of one file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{SeekFrom as Seeking, fgetxattr, flistxattr, seek};
use rustix::io::Errno;

use super::super::error::BuildError;
use super::NO_TIME;
use crate::control::hosts;
use crate::limits::{FILE_CHUNK_BYTES, SPARSE_PIECES};
use crate::tar::pack::Packer;
use crate::tar::{Entry, Sparse};

/// The kernel's own limit, of a list and of a value.
const ATTRIBUTE_BYTES: usize = 64 * 1024;

/// Names and values.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Those that unpacking a layer puts on a file again.
pub fn attributes(fd: impl AsFd, path: &[u8]) -> Result<Attributes, BuildError> {
    let failed = |errno: Errno| BuildError::read(path, errno);
    let mut list = [0_u8; 1024];
    let mut large = Vec::new();
    let names = match flistxattr(&fd, &mut list) {
        Ok(length) => &list[..length],
        Err(Errno::RANGE) => {
            large.resize(ATTRIBUTE_BYTES, 0);
            let length = flistxattr(&fd, &mut large).map_err(failed)?;
            &large[..length]
        }
        Err(Errno::NOTSUP) => &[],
        Err(errno) => return Err(failed(errno)),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        if !name.starts_with(b"user.") && name != b"security.capability" {
            continue;
        }
        let mut value = vec![0; ATTRIBUTE_BYTES];
        match fgetxattr(&fd, name, &mut value) {
            Ok(length) => value.truncate(length),
            // Taken away meanwhile.
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(failed(errno)),
        }
        value.shrink_to_fit();
        found.push((name.to_vec(), value));
    }
    found.sort_unstable();
    Ok(found)
}

/// Packs a file with its content. It must not change meanwhile: what gets shorter is an error.
pub fn pack<W: Write>(
    mut file: File,
    mut entry: Entry,
    packer: &mut Packer<W>,
) -> Result<(), BuildError> {
    let path = entry.path.clone();
    let failed = |source: io::Error| BuildError::read(&path, source);
    entry.attributes = attributes(&file, &path)?;
    let found = file.metadata().map_err(failed)?;
    let length = found.len();
    if path == hosts::HOSTS.as_bytes()[1..] && length <= hosts::HOSTS_BYTES {
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let text = hosts::without_sandboxes(text);
        entry.modified = NO_TIME;
        let sent = packer.entry(&entry, text.len() as u64);
        return sent
            .and_then(|()| packer.content(&text))
            .map_err(BuildError::Send);
    }
    // Reading tells what the map does not: it is asked only where there may be holes.
    if found.blocks().saturating_mul(512) < length {
        entry.sparse = map(&file, length).map_err(failed)?;
    }
    let pieces = match &entry.sparse {
        Some(sparse) => sparse.pieces.clone(),
        None => vec![(0, length)],
    };
    let bytes = pieces.iter().map(|(_, length)| length).sum();
    packer.entry(&entry, bytes).map_err(BuildError::Send)?;
    let expected = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut buffer = vec![0; expected.min(FILE_CHUNK_BYTES)];
    for (offset, length) in pieces {
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            file.read_exact(&mut buffer[..most]).map_err(failed)?;
            packer.content(&buffer[..most]).map_err(BuildError::Send)?;
            left -= most as u64;
        }
    }
    Ok(())
}

/// Where a file has content; `None`: everywhere, or in more places than readers take.
fn map(file: &File, length: u64) -> io::Result<Option<Sparse>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < length {
        let data = match seek(file, Seeking::Data(at)) {
            Ok(data) => data,
            // A hole to the end.
            Err(Errno::NXIO) => break,
            // A file system without holes.
            Err(Errno::INVAL) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(file, Seeking::Hole(data))?.min(length);
        if end <= data {
            break;
        }
        pieces.push((data, end - data));
        // One is added below.
        if pieces.len() >= SPARSE_PIECES {
            return Ok(None);
        }
        at = end;
    }
    if pieces == [(0, length)] {
        return Ok(None);
    }
    // As GNU tar has it: readers learn from it that a hole is at the end.
    pieces.push((length, 0));
    Ok(Some(Sparse { length, pieces }))
}
