//! Layers as plain folders: for kernels without btrfs. Nothing bounds their sum.

use std::io;
use std::path::Path;

use casemate_runtime::DiskLimit;

use super::Layers;

#[derive(Debug)]
pub(super) struct Plain;

impl Layers for Plain {
    fn disk_limit(&self) -> DiskLimit {
        DiskLimit::Advisory
    }

    fn make(&self, folder: &Path, name: &str) -> io::Result<()> {
        std::fs::create_dir(folder.join(name))
    }

    fn limit(&self, _layer: &Path, _bytes: u64) -> io::Result<()> {
        // Processes get a bound on each file instead.
        Ok(())
    }

    fn used_bytes(&self, layer: &Path) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let mut bytes = 0;
        let mut folders = vec![layer.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                bytes += metadata.blocks() * 512;
                if metadata.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        Ok(bytes)
    }

    fn delete(&self, folder: &Path, name: &str) -> io::Result<()> {
        std::fs::remove_dir_all(folder.join(name))
    }

    fn tidy(&self, _root: &Path, _folder: &Path) -> io::Result<()> {
        Ok(())
    }
}
