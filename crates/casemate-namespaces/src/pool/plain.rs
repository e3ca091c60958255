//! Layers as plain folders: for kernels without btrfs. Nothing bounds their sum.

use std::io;
use std::path::{Path, PathBuf};

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
        delete_flat(folder, name)
    }

    fn tidy(&self, _root: &Path, _folder: &Path) -> io::Result<bool> {
        Ok(true)
    }
}

/// Deletes a folder and all in it, however deep a sandbox nested it: each folder that is not empty
/// is moved up beside the first one, so no path grows and nothing recurses. What a crash leaves
/// lies in `folder` too, and is deleted by name like any other.
fn delete_flat(folder: &Path, name: &str) -> io::Result<()> {
    let mut waiting = vec![folder.join(name)];
    let mut moved = 0_u64;
    while let Some(path) = waiting.pop() {
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            // Of the entry itself, never of what a link points at.
            if !entry.file_type()?.is_dir() {
                std::fs::remove_file(entry.path())?;
                continue;
            }
            match std::fs::remove_dir(entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    waiting.push(move_beside(folder, name, &entry.path(), &mut moved)?);
                }
                other => other?,
            }
        }
        std::fs::remove_dir(&path)?;
    }
    Ok(())
}

fn move_beside(folder: &Path, name: &str, path: &Path, moved: &mut u64) -> io::Result<PathBuf> {
    loop {
        *moved += 1;
        let place = folder.join(format!("{name}.{moved}"));
        match std::fs::rename(path, &place) {
            Ok(()) => return Ok(place),
            // What a crash left, with something in it.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_very_deep_folder_is_deleted_and_links_are_not_followed() {
        let home = std::env::temp_dir().join(format!("casemate-plain-{}", std::process::id()));
        let (kept, trash) = (home.join("kept"), home.join("trash"));
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::create_dir_all(trash.join("l/side/more")).unwrap();
        std::fs::create_dir_all(trash.join("l.1/left by a crash")).unwrap();
        std::fs::write(kept.join("file"), "kept").unwrap();
        std::os::unix::fs::symlink(&kept, trash.join("l/side/link")).unwrap();
        // Deeper than a path can name, and than a stack could go.
        let mut at = rustix::fs::open(
            trash.join("l"),
            rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        for _ in 0..2500 {
            rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
            let below = rustix::fs::OFlags::DIRECTORY;
            at = rustix::fs::openat(&at, "d", below, rustix::fs::Mode::empty()).unwrap();
        }
        drop(at);
        delete_flat(&trash, "l").unwrap();
        let left: Vec<_> = std::fs::read_dir(&trash).unwrap().collect();
        assert_eq!(left.len(), 1, "only what is another's: {left:?}");
        assert_eq!(std::fs::read_to_string(kept.join("file")).unwrap(), "kept");
        std::fs::remove_dir_all(home).unwrap();
    }
}
