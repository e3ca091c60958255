//! All that is below a folder, each thing once.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use super::super::error::BuildError;
use super::super::root::open_step;
use super::folder::{Budget, Folder, open_root};
use super::{NO_TIME, file, is_left_empty};
use crate::tar::pack::Packer;
use crate::tar::{Entry, Kind, Time};

/// Packs what is below `root` into `output`.
pub fn pack(output: impl Write, root: &Path) -> Result<(), BuildError> {
    let root = open_root(root)?;
    let stat = fstat(&root).map_err(|errno| BuildError::read(b"/", errno))?;
    let mut pack = Pack {
        packer: Packer::new(output),
        links: HashMap::new(),
        budget: Budget::default(),
    };
    pack.folder(b"./".to_vec(), &stat, Some(&root))?;
    let mut above = vec![Folder::read(root, Vec::new(), &mut pack.budget)?];
    while let Some(folder) = above.last_mut() {
        let Some(name) = folder.next(&mut pack.budget) else {
            above.pop();
            continue;
        };
        if let Some(inner) = pack.one(folder, &name)? {
            above.push(inner);
        }
    }
    pack.packer.finish().map_err(BuildError::Send)?;
    Ok(())
}

/// One file under several names. The numbers of files in different layers of an overlay may be the
/// same, so everything has to be.
#[derive(PartialEq, Eq, Hash)]
struct Identity([i128; 10]);

impl Identity {
    fn of(stat: &Stat) -> Self {
        Self([
            stat.st_dev.into(),
            stat.st_ino.into(),
            stat.st_nlink.into(),
            stat.st_size.into(),
            stat.st_mode.into(),
            i128::from(stat.st_uid) << 32 | i128::from(stat.st_gid),
            stat.st_mtime.into(),
            stat.st_mtime_nsec.into(),
            stat.st_ctime.into(),
            stat.st_ctime_nsec.into(),
        ])
    }
}

struct Pack<W> {
    packer: Packer<W>,
    /// The first name of each.
    links: HashMap<Identity, Vec<u8>>,
    budget: Budget,
}

impl<W: Write> Pack<W> {
    /// One name; a folder whose contents are to follow is given back.
    fn one(&mut self, above: &Folder, name: &CString) -> Result<Option<Folder>, BuildError> {
        let path = above.path_of(name)?;
        let failed = |errno: Errno| BuildError::read(&path, errno);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        let stat = match openat2(&above.fd, name, flags, Mode::empty(), resolve) {
            Ok(found) => fstat(found).map_err(failed)?,
            Err(Errno::XDEV) => return self.mount(above, name, path),
            Err(errno) => return Err(failed(errno)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let fd = open_step(above.fd.as_fd(), name).map_err(failed)?;
                let slashed = [path.as_slice(), b"/"].concat();
                self.folder(slashed, &stat, Some(&fd))?;
                return match is_left_empty(&path) {
                    true => Ok(None),
                    false => Folder::read(fd, path, &mut self.budget).map(Some),
                };
            }
            FileType::RegularFile => self.file(above, name, path, &stat)?,
            FileType::Symlink => {
                let target = readlinkat(&above.fd, name, Vec::new()).map_err(failed)?;
                self.small(path, Kind::Symlink(target.into_bytes()), &stat)?;
            }
            FileType::Fifo => self.small(path, Kind::Fifo, &stat)?,
            // Sockets are of processes, and devices of machines.
            _ => {}
        }
        Ok(None)
    }

    /// What another mount lies on: a folder stays to be mounted on again, with what can be seen of it.
    fn mount(
        &mut self,
        above: &Folder,
        name: &CString,
        path: Vec<u8>,
    ) -> Result<Option<Folder>, BuildError> {
        let stat = statat(&above.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| BuildError::read(&path, errno))?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            self.folder([path.as_slice(), b"/"].concat(), &stat, None)?;
        }
        Ok(None)
    }

    /// `fd` is `None` for what is on another mount.
    fn folder(
        &mut self,
        path: Vec<u8>,
        stat: &Stat,
        fd: Option<&OwnedFd>,
    ) -> Result<(), BuildError> {
        let mut entry = entry(path, Kind::Directory, stat)?;
        match fd {
            Some(fd) => entry.attributes = file::attributes(fd, &entry.path)?,
            // Of somebody outside.
            None => (entry.uid, entry.gid) = (0, 0),
        }
        let name = entry.path.strip_suffix(b"/").unwrap_or_default();
        // The root is the machine's own: its time is that of the writable layer.
        if fd.is_none() || name == b"." || is_left_empty(name) {
            entry.modified = NO_TIME;
        }
        self.packer.entry(&entry, 0).map_err(BuildError::Send)
    }

    /// What has no content.
    fn small(&mut self, path: Vec<u8>, kind: Kind, stat: &Stat) -> Result<(), BuildError> {
        let Some(path) = self.first(path, stat)? else {
            return Ok(());
        };
        let entry = entry(path, kind, stat)?;
        self.packer.entry(&entry, 0).map_err(BuildError::Send)
    }

    fn file(
        &mut self,
        above: &Folder,
        name: &CString,
        path: Vec<u8>,
        stat: &Stat,
    ) -> Result<(), BuildError> {
        let Some(path) = self.first(path, stat)? else {
            return Ok(());
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        let fd = openat2(&above.fd, name, flags, Mode::empty(), resolve)
            .map_err(|errno| BuildError::read(&path, errno))?;
        let entry = entry(path, Kind::File, stat)?;
        file::pack(fd.into(), entry, &mut self.packer)
    }

    /// Packs a further name of something as a hard link; gives the name back if it is the first.
    fn first(&mut self, path: Vec<u8>, stat: &Stat) -> Result<Option<Vec<u8>>, BuildError> {
        if stat.st_nlink < 2 {
            return Ok(Some(path));
        }
        let identity = Identity::of(stat);
        if let Some(first) = self.links.get(&identity) {
            let entry = entry(path, Kind::HardLink(first.clone()), stat)?;
            self.packer.entry(&entry, 0).map_err(BuildError::Send)?;
            return Ok(None);
        }
        self.budget
            .charge(path.len() + size_of::<(Identity, Vec<u8>)>())?;
        self.links.insert(identity, path.clone());
        Ok(Some(path))
    }
}

fn entry(path: Vec<u8>, kind: Kind, stat: &Stat) -> Result<Entry, BuildError> {
    let nanos = u32::try_from(stat.st_mtime_nsec);
    let nanos = nanos.map_err(|_| BuildError::entry(&path, "its time cannot be told"))?;
    Ok(Entry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid.into(),
        gid: stat.st_gid.into(),
        modified: Time {
            seconds: stat.st_mtime,
            nanos,
        },
        attributes: Vec::new(),
        sparse: None,
    })
}
