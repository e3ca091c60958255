//! A context with something of everything in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;

/// Folders end with a slash, links are `name -> target`.
const TREE: &[&str] = &[
    "a.txt",
    "b.txt",
    ".hidden",
    "we{ird},1",
    "sp ace",
    "é",
    "[x]",
    "dir/",
    "dir/b.txt",
    "dir/.env",
    "dir/sub/",
    "dir/sub/c.txt",
    "dir/sub/deep/",
    "dir/sub/deep/d.log",
    "dir-x",
    "empty/",
    "node_modules/",
    "node_modules/m/",
    "node_modules/m/index.js",
    "node_modules/keep.txt",
    "link -> dir",
    "broken -> nowhere",
    "out -> /etc",
    "dir/up -> ../a.txt",
];

pub fn tree() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in TREE {
        if let Some((name, target)) = entry.split_once(" -> ") {
            symlink(target, folder.path().join(name)).unwrap();
        } else if entry.ends_with('/') {
            make(folder.path(), entry, None, 0o755);
        } else {
            make(folder.path(), entry, Some(entry), 0o644);
        }
    }
    make(folder.path(), "run.sh", Some("#!/bin/sh\n"), 0o755);
    folder
}

fn make(folder: &Path, name: &str, content: Option<&str>, mode: u32) {
    let path = folder.join(name);
    match content {
        Some(content) => fs::write(&path, content).unwrap(),
        None => fs::create_dir(&path).unwrap(),
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}
