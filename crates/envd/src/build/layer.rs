//! `POST /build/layer`: one layer of an OCI image onto the root.
//!
//! Entries, whiteouts and opaque folders as in the OCI image specification, "Image Layer Filesystem
//! Changeset". A whiteout hides only what lower layers brought, so what this layer put into folders
//! that were there before is remembered; folders that it made itself need no memory.

mod whiteout;

use std::collections::HashSet;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Gid, Mode, Uid, mkdirat};
use rustix::io::Errno;

use super::Done;
use super::error::BuildError;
use super::input::{Bounded, Input, Stop};
use super::place::{FolderTimes, Placed, Spot, place, settle};
use super::receive::receive;
use super::root::{Root, join, split};
use crate::answer::Answer;
use crate::limits::BUILD_OWNER;
use crate::route::Plain;
use crate::tar::{Archive, Entry, Kind};

/// Names that begin so take others away.
pub use whiteout::PREFIX as WHITEOUT;

pub async fn layer(call: Plain) -> Answer {
    receive(call, |input: Input| {
        let stop = input.stop.clone();
        unpack(input, Path::new("/"), &stop)
    })
    .await
}

/// Unpacks one layer onto `root`. What an error comes after stays.
pub(super) fn unpack(input: impl Read, root: &Path, stop: &Stop) -> Result<Done, BuildError> {
    let opened = Root::of_image(root);
    let mut layer = Layer {
        root: opened.map_err(|source| BuildError::write(b"/", source))?,
        last: None,
        fresh: HashSet::new(),
        kept: HashSet::new(),
        times: FolderTimes::default(),
        done: Done::default(),
    };
    let mut archive = Archive::new(Bounded::new(input));
    while let Some(entry) = archive.next_entry()? {
        stop.check()?;
        layer.done.entries += 1;
        if !layer.apply(&entry, &mut archive)? {
            layer.done.skipped += 1;
        }
    }
    archive.finish()?;
    layer.times.set(&layer.root)?;
    Ok(layer.done)
}

struct Layer {
    root: Root,
    /// The folder of the last entry, by the name it had in the archive: neighbours share it.
    last: Option<(Vec<u8>, Rc<Folder>)>,
    /// Folders that this layer made: nothing below them is from another.
    fresh: HashSet<Vec<u8>>,
    /// What this layer put into other folders.
    kept: HashSet<Vec<u8>>,
    times: FolderTimes,
    done: Done,
}

/// A folder that entries go into.
struct Folder {
    fd: OwnedFd,
    /// Below the root, without links.
    path: Vec<u8>,
    fresh: bool,
}

impl Layer {
    /// `false`: it was left out.
    fn apply<R: Read>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<bool, BuildError> {
        let Some((folder, name)) = split(&entry.path)? else {
            return self.root_itself(entry);
        };
        if name.to_bytes().starts_with(whiteout::PREFIX) {
            return self.whiteout(entry, &folder, &name);
        }
        let owner = owner(entry)?;
        if entry.kind == Kind::Device {
            return Ok(false);
        }
        let Some(folder) = self.folder(entry, folder)? else {
            return Ok(false);
        };
        let spot = Spot {
            folder: folder.fd.as_fd(),
            name: &name,
            owner: Some(owner),
        };
        let placed = place(&spot, entry, archive, &self.root)?;
        let path = join(&folder.path, &name);
        if !folder.fresh && placed != Placed::LeftOut {
            self.keep(path.clone())?;
        }
        match placed {
            Placed::File(bytes) => self.done.bytes += bytes,
            Placed::Folder { fresh } => {
                if fresh {
                    self.times.charge(path.len())?;
                    self.fresh.insert(path.clone());
                }
                self.times.note(path, entry.modified)?;
            }
            Placed::LeftOut => return Ok(false),
        }
        Ok(true)
    }

    /// With the folders above it, which must stay for its sake.
    fn keep(&mut self, mut path: Vec<u8>) -> Result<(), BuildError> {
        while !self.kept.contains(&path) {
            self.times.charge(path.len())?;
            let above = path.iter().rposition(|byte| *byte == b'/');
            let above = above.map(|end| path[..end].to_vec());
            self.kept.insert(path);
            match above {
                Some(above) => path = above,
                None => break,
            }
        }
        Ok(())
    }

    fn root_itself(&mut self, entry: &Entry) -> Result<bool, BuildError> {
        if entry.kind != Kind::Directory {
            return Err(BuildError::entry(&entry.path, "the root must be a folder"));
        }
        let failed = |source| BuildError::write(&entry.path, source);
        let root = self
            .root
            .folder(b"")
            .map_err(|errno| failed(errno.into()))?;
        settle(&root, Some(owner(entry)?), entry).map_err(failed)?;
        self.times.note(Vec::new(), entry.modified)?;
        Ok(true)
    }

    /// The folder that `entry` goes into, made if it is missing; `None`: it is on another mount.
    fn folder(&mut self, entry: &Entry, name: Vec<u8>) -> Result<Option<Rc<Folder>>, BuildError> {
        if let Some((last, folder)) = &self.last
            && *last == name
        {
            return Ok(Some(Rc::clone(folder)));
        }
        let failed = |source| BuildError::write(&entry.path, source);
        let Self { root, fresh, .. } = &mut *self;
        let opened = root.folder_or_make(&name, &mut |above, name| {
            mkdirat(above, name, Mode::from_raw_mode(0o755))?;
            fresh.insert(join(&root.path_of(above)?, name));
            Ok(())
        });
        let fd = match opened {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let path = root.path_of(fd.as_fd()).map_err(failed)?;
        let fresh = fresh.contains(&path);
        let folder = Rc::new(Folder { fd, path, fresh });
        self.last = Some((name, Rc::clone(&folder)));
        Ok(Some(folder))
    }

    fn whiteout(
        &mut self,
        entry: &Entry,
        folder: &[u8],
        name: &CString,
    ) -> Result<bool, BuildError> {
        let failed = |source| BuildError::write(&entry.path, source);
        let fd = match self.root.folder(folder) {
            Ok(fd) => fd,
            // Nothing is there to hide.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(true),
            Err(Errno::XDEV) => return Ok(false),
            Err(errno) => return Err(failed(errno.into())),
        };
        let path = self.root.path_of(fd.as_fd()).map_err(failed)?;
        let fresh = self.fresh.contains(&path);
        let folder = Folder { fd, path, fresh };
        let own = whiteout::Own {
            fresh: &self.fresh,
            kept: &self.kept,
        };
        whiteout::apply(entry, &folder, name, &own)
    }
}

fn owner(entry: &Entry) -> Result<(Uid, Gid), BuildError> {
    let checked = |id: u64| match u32::try_from(id) {
        Ok(id) if id <= BUILD_OWNER => Ok(id),
        _ => Err(BuildError::Owner {
            path: super::shown(&entry.path),
            owner: id,
        }),
    };
    Ok((
        Uid::from_raw(checked(entry.uid)?),
        Gid::from_raw(checked(entry.gid)?),
    ))
}

#[cfg(test)]
mod tests;
