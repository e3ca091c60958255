//! Layers as btrfs subvolumes, each bounded by its quota group.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use casemate_linux::btrfs::{self, Quotas};
use casemate_runtime::DiskLimit;

use super::{Layers, names};

/// The top of the file system, which is nobody's layer.
const TOP_LEVEL: u64 = 5;

#[derive(Debug)]
pub(super) struct Subvolumes {
    /// How the file system counts; for whoever reads a log.
    _quotas: Quotas,
}

impl Subvolumes {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self { _quotas: quotas }
    }
}

impl Layers for Subvolumes {
    fn disk_limit(&self) -> DiskLimit {
        DiskLimit::Enforced
    }

    fn make(&self, folder: &Path, name: &str) -> io::Result<()> {
        btrfs::subvolume_create(&File::open(folder)?, name)
    }

    fn limit(&self, layer: &Path, bytes: u64) -> io::Result<()> {
        btrfs::subvolume_limit(&File::open(layer)?, bytes)
    }

    fn used_bytes(&self, layer: &Path) -> io::Result<u64> {
        let layer = File::open(layer)?;
        let id = btrfs::subvolume_id(&layer)?;
        let groups = btrfs::qgroups(&layer, id)?;
        groups
            .iter()
            .find(|(group, _)| *group == id)
            .map(|(_, bytes)| *bytes)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Recent kernels write the whole file system's state to disk for each subvolume that they take
    /// apart, while everybody waits who makes or removes a file: 1 to 3 ms of processor time, where
    /// a sandbox's few files are gone in a tenth of that (`btrfs_qgroup_cleanup_dropped_subvolume`
    /// of Linux 6.18).
    fn is_worth_emptying(&self) -> bool {
        true
    }

    fn delete(&self, folder: &Path, name: &str) -> io::Result<()> {
        btrfs::subvolume_delete(&File::open(folder)?, name)
    }

    /// Groups first, layers after: older kernels take away the group of a layer that exists, and
    /// its limit with it. Whatever had a group before is in a folder by the time that is read,
    /// because the kernel locks the folder while it makes a subvolume in it.
    fn tidy(&self, root: &Path, folders: &[PathBuf]) -> io::Result<bool> {
        let root = File::open(root)?;
        let mut doomed = BTreeSet::new();
        let mut next = 0;
        loop {
            let groups = btrfs::qgroups(&root, next)?;
            let Some((last, _)) = groups.last() else {
                break;
            };
            next = last + 1;
            doomed.extend(groups.iter().map(|(group, _)| *group));
        }
        doomed.remove(&TOP_LEVEL);
        for folder in folders {
            for name in names(folder)? {
                match File::open(folder.join(name)) {
                    Ok(layer) => doomed.remove(&btrfs::subvolume_id(&layer)?),
                    // Retired meanwhile: it is found in the next folder.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
            }
        }
        let mut freed = true;
        for group in doomed {
            // Busy while the kernel still cleans up; the next time will do.
            freed &= btrfs::qgroup_delete(&root, group).is_ok();
        }
        Ok(freed)
    }
}
