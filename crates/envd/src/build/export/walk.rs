//! All that is below a folder, each thing once.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use super::super::error::BuildError;
use super::super::root::{join, open_step};
use super::file;
use crate::limits::{BUILD_NAME_BYTES, PATH_BYTES};
use crate::tar::pack::Packer;
use crate::tar::{Entry, Kind, Time};

/// Folders of the root whose contents are of one machine only.
const LEFT_EMPTY: [&[u8]; 5] = [b"dev", b"proc", b"run", b"sys", b"tmp"];

/// Packs what is below `root` into `output`.
pub fn pack(output: impl Write, root: &Path) -> Result<(), BuildError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |errno: Errno| BuildError::read(b"/", errno);
    let root = rustix::fs::open(root, flags, Mode::empty()).map_err(failed)?;
    let stat = fstat(&root).map_err(failed)?;
    let mut pack = Pack {
        packer: Packer::new(output),
        links: HashMap::new(),
        name_bytes: 0,
    };
    pack.folder(b"./".to_vec(), &stat, Some(&root))?;
    let mut above = vec![pack.open(root, Vec::new())?];
    while let Some(folder) = above.last_mut() {
        let Some(name) = folder.names.pop() else {
            pack.name_bytes -= folder.name_bytes;
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

/// A folder that is being packed.
struct Folder {
    fd: OwnedFd,
    /// Below the root, without slashes at its ends.
    path: Vec<u8>,
    /// Those to come, the next one last.
    names: Vec<CString>,
    name_bytes: usize,
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
    /// Of all names that are kept.
    name_bytes: usize,
}

impl<W: Write> Pack<W> {
    fn charge(&mut self, bytes: usize) -> Result<(), BuildError> {
        self.name_bytes += bytes;
        match self.name_bytes > BUILD_NAME_BYTES {
            true => Err(BuildError::Names),
            false => Ok(()),
        }
    }

    /// Reads all names of a folder.
    fn open(&mut self, fd: OwnedFd, path: Vec<u8>) -> Result<Folder, BuildError> {
        let failed = |errno: Errno| BuildError::read(&path, errno);
        let (mut names, before) = (Vec::new(), self.name_bytes);
        for entry in Dir::read_from(&fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                self.charge(name.as_bytes().len() + size_of::<CString>())?;
                names.push(name);
            }
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Folder {
            fd,
            path,
            names,
            name_bytes: self.name_bytes - before,
        })
    }

    /// One name; a folder whose contents are to follow is given back.
    fn one(&mut self, above: &Folder, name: &CString) -> Result<Option<Folder>, BuildError> {
        let path = join(&above.path, name);
        // With the slash of folders.
        if path.len() + 1 >= PATH_BYTES {
            return Err(BuildError::entry(&path, "the name is too long"));
        }
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
                let is_left_empty = LEFT_EMPTY.contains(&path.as_slice());
                return match is_left_empty {
                    true => Ok(None),
                    false => self.open(fd, path).map(Some),
                };
            }
            FileType::RegularFile => self.file(above, name, path, &stat)?,
            FileType::Symlink => {
                let target = readlinkat(&above.fd, name, Vec::new()).map_err(failed)?;
                self.small(path, Kind::Symlink(target.into_bytes()), &stat)?;
            }
            FileType::Fifo => self.small(path, Kind::Special, &stat)?,
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
            // Of a mount: of when the machine started, and of somebody outside.
            None => {
                (entry.uid, entry.gid) = (0, 0);
                entry.modified = Time {
                    seconds: 0,
                    nanos: 0,
                };
            }
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
        self.charge(path.len() + size_of::<(Identity, Vec<u8>)>())?;
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
