//! The uploaded archive → the private folder. Owners and attributes in it mean nothing, and no link
//! is followed.

use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};

use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, mkdirat};

use crate::build::Done;
use crate::build::error::BuildError;
use crate::build::input::{Bounded, Stop};
use crate::build::place::{FolderTimes, Placed, Spot, place, settle};
use crate::build::root::{Root, split};
use crate::limits::FILE_CHUNK_BYTES;
use crate::tar::{Archive, Entry, Kind, TarError};

const GZIP: [u8; 2] = [0x1f, 0x8b];

pub fn unpack(input: impl Read, tree: &OwnedFd, stop: &Stop) -> Result<Done, BuildError> {
    let failed = |source: io::Error| BuildError::Archive(TarError::Read(source));
    let mut input = BufReader::with_capacity(FILE_CHUNK_BYTES, Bounded::new(input));
    let mut magic = [0; GZIP.len()];
    let mut filled = 0;
    while filled < magic.len() {
        match input.read(&mut magic[filled..]).map_err(failed)? {
            0 => break,
            count => filled += count,
        }
    }
    if filled == 0 {
        return Err(BuildError::Archive(TarError::Empty));
    }
    let whole = io::Cursor::new(magic).take(filled as u64).chain(input);
    let tree = tree.try_clone().map_err(failed)?;
    if magic == GZIP {
        let unpacked = Bounded::new(MultiGzDecoder::new(whole));
        entries(
            BufReader::with_capacity(FILE_CHUNK_BYTES, unpacked),
            tree,
            stop,
        )
    } else {
        entries(whole, tree, stop)
    }
}

fn entries(input: impl Read, tree: OwnedFd, stop: &Stop) -> Result<Done, BuildError> {
    let root = Root::without_links(tree);
    let mut archive = Archive::new(input);
    let mut times = FolderTimes::default();
    let mut last: Option<(Vec<u8>, OwnedFd)> = None;
    let mut done = Done::default();
    while let Some(mut entry) = archive.next_entry()? {
        stop.check()?;
        done.entries += 1;
        check(&entry)?;
        entry.attributes.clear();
        let failed = |source: io::Error| BuildError::write(&entry.path, source);
        let Some((folder, name)) = split(&entry.path)? else {
            if entry.kind != Kind::Directory {
                return Err(BuildError::entry(&entry.path, "the root must be a folder"));
            }
            let fd = root.folder(b"").map_err(|errno| failed(errno.into()))?;
            settle(&fd, None, &entry).map_err(failed)?;
            times.note(Vec::new(), entry.modified)?;
            continue;
        };
        if last.as_ref().is_none_or(|(last, _)| *last != folder) {
            let opened = root.folder_or_make(&folder, &mut |above, name| {
                Ok(mkdirat(above, name, Mode::from_raw_mode(0o755))?)
            });
            last = Some((folder, opened.map_err(failed)?));
        }
        let Some((folder, fd)) = &last else { continue };
        let spot = Spot {
            folder: fd.as_fd(),
            name: &name,
            owner: None,
        };
        match place(&spot, &entry, &mut archive, &root)? {
            Placed::File(bytes) => done.bytes += bytes,
            Placed::Folder { .. } => {
                let path = crate::build::root::join(folder, &name);
                times.note(path, entry.modified)?;
            }
            Placed::LeftOut => done.skipped += 1,
        }
    }
    archive.finish()?;
    times.set(&root)?;
    Ok(done)
}

fn check(entry: &Entry) -> Result<(), BuildError> {
    let refuse = |why| Err(BuildError::entry(&entry.path, why));
    if entry.path.starts_with(b"/") {
        return refuse("a name must not be absolute");
    }
    match &entry.kind {
        Kind::Fifo | Kind::Device => refuse("devices and pipes cannot be copied"),
        Kind::HardLink(target) if target.starts_with(b"/") => {
            refuse("a hard link must not lead to an absolute name")
        }
        Kind::HardLink(_) | Kind::File | Kind::Symlink(_) | Kind::Directory => Ok(()),
    }
}
