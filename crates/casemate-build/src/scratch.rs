//! The layer below sandboxes that begin with nothing: in them images are unpacked.
//!
//! It has what programs of ours need there: folders for the mounts of every sandbox, and a root user.
//! What an image brings of the same name lies over it, and what is made of that holds nothing of
//! this layer that was not changed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::draft::{self, Draft};

/// What such layers start with. The number behind it changes with what is in it.
pub const LAYER_PREFIX: &str = "e-";
const LAYER: &str = "e-1";

const FOLDERS: [(&str, u32); 7] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
];
const FILES: [(&str, &str); 2] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
];

/// The layer's folder; made if it is not there yet. Blocks for some file operations. One call at a
/// time per data directory.
pub fn ensure(layers_dir: &Path) -> io::Result<PathBuf> {
    draft::sweep_drafts(layers_dir, LAYER_PREFIX)?;
    let place = layers_dir.join(LAYER);
    if place.is_dir() {
        return Ok(place);
    }
    let draft = Draft::open(layers_dir, LAYER)?;
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    for (name, mode) in FOLDERS {
        let path = draft.path().join(name);
        fs::create_dir(&path)?;
        set(&path, mode)?;
    }
    for (name, content) in FILES {
        let path = draft.path().join(name);
        fs::write(&path, content)?;
        set(&path, 0o644)?;
    }
    draft.keep()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("e-1.tmp-12345678")).unwrap();
        let layer = ensure(dir.path()).unwrap();
        let mode = |name: &str| fs::metadata(layer.join(name)).unwrap().permissions().mode();
        assert_eq!(mode("tmp") & 0o7777, 0o1777);
        assert_eq!(mode("root") & 0o7777, 0o700);
        assert_eq!(
            fs::read_to_string(layer.join("etc/group")).unwrap(),
            "root:x:0:\n"
        );
        assert_eq!(ensure(dir.path()).unwrap(), layer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
