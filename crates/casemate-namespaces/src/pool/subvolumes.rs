//! Layers as btrfs subvolumes, each bounded by its quota group.
//!
//! What a snapshot holds is noted on it when it is kept, and a copy has the note too. Simple quotas
//! count bytes for the subvolume in which they were written, for as long as anybody can reach them:
//! a copy begins at none, so what it began with is measured, and taken off its limit. It stays taken
//! off while the copy lives, also where files were deleted; and where a sandbox writes anew what
//! its snapshots hold, both are counted. Full quotas count what a subvolume reaches.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use casemate_linux::btrfs::{self, Qgroup, Quotas};
use casemate_runtime::DiskLimit;
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

use super::{Layers, names, still};

/// The top of the file system, which is nobody's layer.
const TOP_LEVEL: u64 = 5;

/// The note of what a layer began with: an attribute of its top, which no sandbox sees.
const BEGAN_WITH: &str = "trusted.casemate.began-with";

/// What a copy may write in any case: to start, and to delete. One that was full could not be used.
const COPY_BYTES_MIN: u64 = 4 << 20;

#[derive(Debug)]
pub(super) struct Subvolumes {
    quotas: Quotas,
}

impl Subvolumes {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self { quotas }
    }
}

/// Bytes that a layer began with; `None` for one that began empty.
fn began_with(layer: &File) -> io::Result<Option<u64>> {
    let mut noted = [0; 8];
    match fgetxattr(layer, BEGAN_WITH, &mut noted) {
        Ok(8) => Ok(Some(u64::from_le_bytes(noted))),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(Errno::NODATA) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn group(layer: &File) -> io::Result<Qgroup> {
    let id = btrfs::subvolume_id(layer)?;
    let groups = btrfs::qgroups(layer, id)?;
    let own = groups.into_iter().find(|group| group.id == id);
    own.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

impl Layers for Subvolumes {
    fn disk_limit(&self) -> DiskLimit {
        DiskLimit::Enforced
    }

    fn make(&self, folder: &Path, name: &str) -> io::Result<()> {
        btrfs::subvolume_create(&File::open(folder)?, name)
    }

    fn copy(&self, layer: &Path, folder: &Path, name: &str) -> io::Result<()> {
        btrfs::snapshot_create(&File::open(layer)?, &File::open(folder)?, name)
    }

    /// Copying did.
    fn sync_copy(&self, _layer: &Path) -> io::Result<()> {
        Ok(())
    }

    fn limit(&self, layer: &Path, bytes: u64) -> io::Result<()> {
        let layer = File::open(layer)?;
        let bytes = match (began_with(&layer)?, self.quotas) {
            _ if bytes == u64::MAX => bytes,
            (None, _) => bytes,
            (Some(begun), Quotas::Simple) => bytes.saturating_sub(begun).max(COPY_BYTES_MIN),
            (Some(begun), Quotas::Full) => bytes.max(begun.saturating_add(COPY_BYTES_MIN)),
        };
        btrfs::subvolume_limit(&layer, bytes)
    }

    fn used_bytes(&self, layer: &Path) -> io::Result<u64> {
        let layer = File::open(layer)?;
        let uncounted = match self.quotas {
            Quotas::Simple => began_with(&layer)?.unwrap_or(0),
            Quotas::Full => 0,
        };
        Ok(group(&layer)?.referenced.saturating_add(uncounted))
    }

    fn holds_bytes(&self, layer: &Path) -> io::Result<u64> {
        let layer = File::open(layer)?;
        match began_with(&layer)? {
            Some(noted) => Ok(noted),
            None => Ok(group(&layer)?.referenced),
        }
    }

    fn copies_share(&self) -> bool {
        true
    }

    fn note_size(&self, layer: &Path) -> io::Result<()> {
        let opened = File::open(layer)?;
        let bytes = match self.quotas {
            Quotas::Simple => still::bytes_below(layer)?,
            Quotas::Full => group(&opened)?.referenced,
        };
        let flags = XattrFlags::empty();
        Ok(fsetxattr(&opened, BEGAN_WITH, &bytes.to_le_bytes(), flags)?)
    }

    /// With simple quotas what it holds: less comes back while others share it.
    fn kept_bytes(&self, layer: &Path) -> io::Result<Option<u64>> {
        let layer = File::open(layer)?;
        match self.quotas {
            Quotas::Simple => began_with(&layer),
            Quotas::Full => Ok(Some(group(&layer)?.exclusive)),
        }
    }

    /// Moving a subvolume cannot be written to the log, so syncing the folder that it came to commits
    /// the whole, by the caller itself. (The call that asks the kernel's own thread to commit can
    /// wait for its next turn, half a minute later, when two ask at once.)
    fn commit(&self, kept: &Path) -> io::Result<()> {
        File::open(kept)?.sync_all()
    }

    /// Recent kernels write the whole file system's state to disk for each subvolume that they take
    /// apart, while everybody waits who makes or removes a file: 1 to 3 ms of processor time, where
    /// a sandbox's few files are gone in a tenth of that (`btrfs_qgroup_cleanup_dropped_subvolume`
    /// of Linux 6.18).
    fn is_worth_emptying(&self, layer: &Path) -> bool {
        // The note of one that began with a snapshot would be wrong.
        File::open(layer).is_ok_and(|layer| matches!(began_with(&layer), Ok(None)))
    }

    fn delete(&self, folder: &Path, name: &str) -> io::Result<()> {
        btrfs::subvolume_delete(&File::open(folder)?, name)
    }

    /// Groups first, layers after: older kernels take away the group of a layer that exists, and
    /// its limit with it. Whatever had a group before is in a folder by the time that is read,
    /// because the kernel locks the folder while it makes a subvolume in it.
    fn tidy(&self, root: &Path, folders: &[PathBuf]) -> io::Result<bool> {
        let root = File::open(root)?;
        let mut doomed = BTreeMap::new();
        let mut next = 0;
        loop {
            let groups = btrfs::qgroups(&root, next)?;
            let Some(last) = groups.last() else {
                break;
            };
            next = last.id + 1;
            doomed.extend(groups.iter().map(|group| (group.id, group.referenced)));
        }
        doomed.remove(&TOP_LEVEL);
        for folder in folders {
            for name in names(folder)? {
                match File::open(folder.join(name)) {
                    Ok(layer) => drop(doomed.remove(&btrfs::subvolume_id(&layer)?)),
                    // Retired meanwhile: it is found in the next folder.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
            }
        }
        let mut freed = true;
        for (group, bytes) in doomed {
            // Of what others can still reach; asking would make the file system write.
            let is_needed = self.quotas == Quotas::Simple && bytes > 0;
            // Busy while the kernel still cleans up; the next time will do.
            freed &= !is_needed && btrfs::qgroup_delete(&root, group).is_ok();
        }
        Ok(freed)
    }
}
