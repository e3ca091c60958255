//! Layers as btrfs subvolumes, each bounded by its quota group.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use casemate_linux::btrfs::{self, Quotas};
use casemate_runtime::DiskLimit;

use super::Layers;

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

    fn delete(&self, folder: &Path, name: &str) -> io::Result<()> {
        btrfs::subvolume_delete(&File::open(folder)?, name)
    }

    fn tidy(&self, root: &Path, live: &[PathBuf]) -> io::Result<()> {
        let root = File::open(root)?;
        let mut known = vec![TOP_LEVEL];
        for layer in live {
            // One that was retired meanwhile keeps its group until the next time.
            if let Ok(layer) = File::open(layer) {
                known.push(btrfs::subvolume_id(&layer)?);
            }
        }
        let mut next = 0;
        loop {
            let groups = btrfs::qgroups(&root, next)?;
            let Some((last, _)) = groups.last() else {
                return Ok(());
            };
            next = last + 1;
            for (group, _) in groups.iter().filter(|(group, _)| !known.contains(group)) {
                // Busy while the kernel still cleans up, or a layer made this very moment, whose
                // group the kernel keeps as long as the subvolume exists.
                let _ = btrfs::qgroup_delete(&root, *group);
            }
        }
    }
}
