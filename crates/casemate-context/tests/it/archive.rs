//! Hash and archive.

use std::fs;
use std::io::Read;

use casemate_context::{Archive, Context, ContextError};
use flate2::read::GzDecoder;

use crate::tree::tree;

#[test]
fn the_hash_is_the_sdks() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello\n").unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(folder.path().join("a.txt"), permissions).unwrap();
    let context = Context::open(folder.path()).unwrap();
    let hash = context.select("a.txt", "a.txt").unwrap().hash().unwrap();
    assert_eq!(
        hash,
        "49ccf0a0a1bce4bd8b8c004d206fb8b1692166706930faa40827886fa70b08f5"
    );
}

#[test]
fn an_archive_holds_the_files_as_they_are() {
    let folder = tree();
    let long = "n".repeat(150);
    fs::write(folder.path().join("dir").join(&long), vec![7; 3 << 20]).unwrap();
    let context = Context::open(folder.path()).unwrap();
    let selection = context.select("dir", "/x").unwrap();
    let archive = selection.archive(&selection.hash().unwrap()).unwrap();
    assert!(archive.left_out.is_empty());
    assert_eq!(archive.file.metadata().unwrap().len(), archive.bytes);
    let entries = entries(archive);
    let names: Vec<_> = entries.iter().map(|entry| &entry.0[..]).collect();
    let long = format!("dir/{long}");
    assert_eq!(
        names,
        [
            "dir",
            "dir/.env",
            "dir/b.txt",
            &long,
            "dir/sub",
            "dir/sub/c.txt",
            "dir/sub/deep",
            "dir/sub/deep/d.log",
            "dir/up",
        ]
    );
    assert_eq!(entries[2].1, b"dir/b.txt");
    assert_eq!(entries[3].1.len(), 3 << 20);
    assert_eq!(entries[8].2.as_deref(), Some("../a.txt"));
    assert_eq!((entries[0].3, entries[2].3), (0o755, 0o644));
}

#[test]
fn the_whole_context_is_an_archive_with_its_folder_first() {
    let folder = tree();
    let context = Context::open(folder.path()).unwrap();
    let selection = context.select(".", "/x").unwrap();
    let archive = selection.archive(&selection.hash().unwrap()).unwrap();
    let entries = entries(archive);
    assert_eq!(entries[0].0, ".");
    assert_eq!(entries.len(), selection.count());
}

#[test]
fn files_that_changed_after_their_hash_are_not_packed_under_it() {
    let folder = tree();
    let context = Context::open(folder.path()).unwrap();
    let selection = context.select("a.txt", "/x").unwrap();
    let hash = selection.hash().unwrap();
    fs::write(folder.path().join("a.txt"), "A.txt").unwrap();
    let error = selection.archive(&hash).unwrap_err();
    assert!(matches!(error, ContextError::Changed { .. }));
    fs::remove_file(folder.path().join("a.txt")).unwrap();
    let error = selection.archive(&hash).unwrap_err();
    assert!(matches!(error, ContextError::Read { .. }));
}

/// Path, content, target and mode of each.
type Entry = (String, Vec<u8>, Option<String>, u32);

fn entries(archive: Archive) -> Vec<Entry> {
    let mut tar = tar::Archive::new(GzDecoder::new(archive.file));
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let target = entry.link_name().unwrap();
        let target = target.map(|target| target.to_str().unwrap().to_owned());
        let mode = entry.header().mode().unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (path.trim_end_matches('/').to_owned(), content, target, mode)
    });
    entries.collect()
}
