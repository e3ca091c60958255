use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::*;

/// An archive with one entry of any name and kind, unchecked by the `tar` crate.
fn raw(entries: &[(&str, EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, link, content) in entries {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Unpacks into `in/` of a fresh folder beside which `out/victim` lies.
fn unpack_beside_victim(archive: &[u8]) -> (tempfile::TempDir, Result<Unpacked, ArchiveError>) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    fs::write(dir.path().join("out/victim"), "untouched").unwrap();
    let result = unpack(archive, &dir.path().join("in"));
    (dir, result)
}

#[track_caller]
fn check_harmless(entries: &[(&str, EntryType, &str, &str)]) {
    let (dir, result) = unpack_beside_victim(&raw(entries));
    let names: Vec<_> = fs::read_dir(dir.path().join("out")).unwrap().collect();
    assert_eq!(names.len(), 1, "{entries:?} wrote outside");
    let victim = dir.path().join("out/victim");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::metadata(&victim).unwrap().nlink(), 1);
    assert!(result.is_err(), "{entries:?} must be refused");
}

#[test]
fn nothing_is_written_outside_the_folder() {
    use EntryType::{Directory, Link, Regular, Symlink};
    check_harmless(&[("../out/new", Regular, "", "x")]);
    check_harmless(&[("a/../../out/new", Regular, "", "x")]);
    check_harmless(&[("a", Symlink, "../out", ""), ("a/new", Regular, "", "x")]);
    check_harmless(&[("a", Symlink, "../out", ""), ("a", Directory, "", "")]);
    check_harmless(&[("a", Symlink, "../out", ""), ("a/d", Directory, "", "")]);
    check_harmless(&[("a", Link, "../out/victim", "")]);
    check_harmless(&[("a", Symlink, "../out", ""), ("b", Link, "a/victim", "")]);
    check_harmless(&[("a", Symlink, "../out", ""), ("a/l", Symlink, "x", "")]);
    check_harmless(&[("a", Link, "/etc/passwd", "")]);
}

#[test]
fn a_link_is_replaced_and_not_written_through() {
    use EntryType::{Regular, Symlink};
    let entries = [
        ("a", Symlink, "../out/victim", ""),
        ("a", Regular, "", "new"),
    ];
    let (dir, result) = unpack_beside_victim(&raw(&entries));
    result.unwrap();
    assert_eq!(
        fs::read_to_string(dir.path().join("out/victim")).unwrap(),
        "untouched"
    );
    assert_eq!(fs::read_to_string(dir.path().join("in/a")).unwrap(), "new");
}

#[test]
fn device_nodes_are_left_out_and_absolute_names_stay_inside() {
    use EntryType::{Block, Char, Fifo, Regular};
    let entries = [
        ("dev/a", Char, "", ""),
        ("b", Block, "", ""),
        ("c", Fifo, "", ""),
        ("/etc/x", Regular, "", "x"),
    ];
    let (dir, result) = unpack_beside_victim(&raw(&entries));
    assert_eq!(result.unwrap().skipped, 3);
    assert!(!dir.path().join("in/b").exists());
    let meta = fs::metadata(dir.path().join("in/etc/x")).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o4755);
    assert_eq!(meta.mtime(), 1_000_000);
}

#[test]
fn rubbish_is_an_error_and_not_a_panic() {
    for rubbish in [
        &b""[..],
        b"hello",
        &[0x1f, 0x8b, 0, 0],
        &[0x28, 0xb5, 0x2f, 0xfd, 9, 9],
        &[7; 4096],
    ] {
        let (_dir, result) = unpack_beside_victim(rubbish);
        assert!(result.is_err(), "{rubbish:?}");
    }
    let whole = raw(&[("a", EntryType::Regular, "", &"x".repeat(5000))]);
    let (_dir, result) = unpack_beside_victim(&whole[..2000]);
    assert!(result.is_err(), "a cut archive");
}

#[test]
fn owners_beyond_a_sandboxs_range_are_refused() {
    let mut header = Header::new_gnu();
    header.set_uid(70_000);
    header.set_gid(0);
    header.set_mode(0o644);
    header.set_size(0);
    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut header, "a", io::empty()).unwrap();
    let (_dir, result) = unpack_beside_victim(&builder.into_inner().unwrap());
    assert!(
        matches!(result, Err(ArchiveError::Owner { id: 70_000, .. })),
        "{result:?}"
    );
}

fn sample(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), "content").unwrap();
    fs::set_permissions(root.join("a/b/file"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("a/b/file"), root.join("z")).unwrap();
    symlink("/a/b", root.join("link")).unwrap();
    fs::write(root.join("x".repeat(200)), "long").unwrap();
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    // With a newline, at which the raw spelling would be cut.
    rustix::fs::setxattr(root.join("z"), "user.note", b"a\nb\0", flags).unwrap();
}

#[test]
fn what_is_packed_comes_out_again() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        sample(&from);
        let file = dir.path().join("file");
        pack(&from, b"{}", File::create(&file).unwrap(), compression).unwrap();
        let header = peek_header(File::open(&file).unwrap()).unwrap();
        assert_eq!(header.as_deref(), Some(&b"{}"[..]));
        let done = unpack(File::open(&file).unwrap(), &to).unwrap();
        assert_eq!(done.header.as_deref(), Some(&b"{}"[..]));
        assert!(!to.join(HEADER_NAME).exists());

        let meta = fs::metadata(to.join("a/b/file")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.nlink()), (0o4755, 2));
        assert_eq!(fs::metadata(to.join("a")).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/a/b"));
        assert_eq!(
            fs::read_to_string(to.join("x".repeat(200))).unwrap(),
            "long"
        );
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(to.join("z"), "user.note", &mut value).unwrap();
        assert_eq!(&value[..length], b"a\nb\0");

        let again = dir.path().join("again");
        pack(&to, b"{}", File::create(&again).unwrap(), compression).unwrap();
        assert!(
            fs::read(&file).unwrap() == fs::read(&again).unwrap(),
            "{compression:?}"
        );
    }
}
