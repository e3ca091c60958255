use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::tar::write::{Item, Writer};

struct Image(TempDir);

impl Image {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn apply(&self, bytes: &[u8]) -> Result<Done, BuildError> {
        unpack(bytes, self.0.path(), &Stop::default())
    }

    #[track_caller]
    fn layer(&self, items: &[Item<'_>]) -> Done {
        self.apply(&Writer::of(items)).unwrap()
    }

    #[track_caller]
    fn refused(&self, items: &[Item<'_>]) -> String {
        self.apply(&Writer::of(items)).unwrap_err().to_string()
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    #[track_caller]
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn is_there(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok()
    }
}

#[test]
fn owners_modes_times_and_kinds() {
    let image = Image::new();
    let done = image.layer(&[
        Item {
            modified: 7,
            ..Item::folder("./")
        },
        Item {
            mode: 0o1777,
            modified: 42,
            ..Item::folder("tmp")
        },
        Item {
            mode: 0o4755,
            owner: (5, 6),
            ..Item::file("/tmp/suid", "abc")
        },
        Item {
            owner: (65_535, 7),
            ..Item::symlink("tmp/l", "/nowhere")
        },
        Item::hard_link("h", "./tmp/suid"),
        Item::hard_link("h", "h"),
        Item::of(b'3', "dev/null"),
        Item {
            mode: 0o620,
            owner: (8, 9),
            modified: 43,
            ..Item::of(b'6', "new/fifo")
        },
        Item::file("made/on/the/way", "x"),
    ]);
    let expected = Done {
        entries: 9,
        bytes: 4,
        skipped: 1,
    };
    assert_eq!(done, expected);
    let tmp = fs::metadata(image.at("tmp")).unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.mtime()), (0o1777, 42));
    assert_eq!(fs::metadata(image.at("")).unwrap().mtime(), 7);
    let suid = fs::metadata(image.at("tmp/suid")).unwrap();
    assert_eq!(
        (suid.mode() & 0o7777, suid.uid(), suid.gid()),
        (0o4755, 5, 6)
    );
    assert_eq!((suid.nlink(), suid.mtime()), (2, 1_000_000_000));
    let link = fs::symlink_metadata(image.at("tmp/l")).unwrap();
    assert_eq!(
        (link.uid(), link.gid(), link.mtime()),
        (65_535, 7, 1_000_000_000)
    );
    let way = fs::metadata(image.at("made/on")).unwrap();
    assert_eq!((way.mode() & 0o7777, way.uid()), (0o755, 0));
    let fifo = fs::symlink_metadata(image.at("new/fifo")).unwrap();
    assert!(fifo.file_type().is_fifo());
    assert_eq!(
        (fifo.mode() & 0o7777, fifo.uid(), fifo.gid(), fifo.mtime()),
        (0o620, 8, 9, 43)
    );
    assert!(!image.is_there("dev"));
}

#[test]
fn later_entries_replace_earlier_ones_of_another_kind() {
    let image = Image::new();
    image.layer(&[
        Item::folder("a"),
        Item::file("a/below", "1"),
        Item::file("b", "file"),
        Item::symlink("c", "b"),
        Item::folder("kept"),
        Item::file("kept/old", "1"),
    ]);
    image.layer(&[
        Item::file("a", "now a file"),
        Item::folder("b"),
        Item::file("b/new", "x"),
        Item::file("c", "own"),
        Item {
            mode: 0o700,
            ..Item::folder("kept")
        },
    ]);
    assert_eq!(image.read("a"), "now a file");
    assert_eq!(image.read("b/new"), "x");
    assert_eq!(image.read("c"), "own");
    assert_eq!(image.read("kept/old"), "1");
    assert_eq!(
        fs::metadata(image.at("kept")).unwrap().mode() & 0o7777,
        0o700
    );
}

#[test]
fn links_in_the_way_are_followed_inside_the_image() {
    let image = Image::new();
    let outside = tempfile::tempdir().unwrap();
    image.layer(&[
        Item::folder("usr/bin"),
        Item::symlink("bin", "usr/bin"),
        Item::symlink("abs", "/usr"),
        Item::symlink("up", "../../../../usr"),
        Item::symlink("dangling", "not/there"),
        Item::symlink("loop", "loop"),
    ]);
    symlink(outside.path(), image.at("out")).unwrap();
    image.layer(&[
        Item::file("bin/a", "1"),
        Item::file("abs/b", "2"),
        Item::file("up/c", "3"),
        Item::file("dangling/d", "4"),
        Item::file("out/e", "5"),
    ]);
    assert_eq!(image.read("usr/bin/a"), "1");
    assert_eq!(image.read("usr/b"), "2");
    assert_eq!(image.read("usr/c"), "3");
    assert_eq!(image.read("not/there/d"), "4");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    // The link itself is replaced, not what it leads to.
    image.layer(&[Item::file("bin", "x")]);
    assert_eq!(
        (image.read("bin"), image.read("usr/bin/a")),
        ("x".into(), "1".into())
    );
    assert!(
        image
            .refused(&[Item::file("loop/x", "")])
            .starts_with("'loop/x': ")
    );
    assert!(
        image
            .refused(&[Item::file("bin/x", "")])
            .starts_with("'bin/x': not a directory")
    );
}

#[test]
fn whiteouts_hide_what_is_below() {
    let image = Image::new();
    image.layer(&[
        Item::file("d/gone", "1"),
        Item::file("d/stays", "1"),
        Item::file("tree/deep/er/x", "1"),
        Item::file("both", "old"),
        Item::file("mixed/old", "1"),
        Item::file(".wh.from-below", "x"),
    ]);
    let done = image.layer(&[
        Item::file("d/.wh.gone", ""),
        Item::file("d/.wh.never-there", ""),
        Item::file("no/such/.wh.folder", ""),
        Item::file(".wh.tree", ""),
        // What the layer itself has stays, in whatever order.
        Item::file("both", "new"),
        Item::file(".wh.both", ""),
        Item::file("mixed/new", "1"),
        Item::file(".wh.mixed", ""),
        Item::file(".wh..wh.plnk", ""),
    ]);
    assert_eq!((done.entries, done.skipped), (9, 1));
    assert!(!image.is_there("d/gone") && image.is_there("d/stays"));
    assert!(!image.is_there("tree") && !image.is_there("no"));
    assert_eq!(image.read("both"), "new");
    assert!(!image.is_there("mixed/old") && image.is_there("mixed/new"));
    for wrong in [".wh.", ".wh..", ".wh..."] {
        assert!(
            image.refused(&[Item::file(wrong, "")]).contains("whiteout"),
            "{wrong}"
        );
    }
}

#[test]
fn opaque_folders_keep_only_what_their_layer_brings() {
    let image = Image::new();
    let below = [
        Item::file("d/old", "1"),
        Item::file("d/sub/old", "1"),
        Item::file("d/gone/x", "1"),
        Item::file("d/same", "old"),
    ];
    for opaque_first in [true, false] {
        image.layer(&below);
        let mut items = vec![
            Item::file("d/same", "new"),
            Item::file("d/sub/new", "1"),
            Item::file("d/fresh/x", "1"),
        ];
        items.insert(
            if opaque_first { 0 } else { 3 },
            Item::file("d/.wh..wh..opq", ""),
        );
        image.layer(&items);
        assert!(!image.is_there("d/old") && !image.is_there("d/gone"));
        assert!(!image.is_there("d/sub/old") && image.is_there("d/sub/new"));
        assert_eq!(image.read("d/same"), "new");
        assert!(image.is_there("d/fresh/x"));
        image.layer(&[Item::file(".wh.d", "")]);
        assert!(!image.is_there("d"));
    }
}

#[test]
fn hostile_and_impossible_entries_are_named() {
    let image = Image::new();
    for (item, words) in [
        (
            Item::file("a/../../b", ""),
            "'a/../../b': a name must not contain '..'",
        ),
        (
            Item::hard_link("h", "gone/f"),
            "'h': hard link to 'gone/f', which is not there",
        ),
        (
            Item::hard_link("h", "../f"),
            "'../f': a name must not contain '..'",
        ),
        (Item::file("/", ""), "'/': the root must be a folder"),
        (
            Item {
                owner: (65_536, 0),
                ..Item::file("f", "")
            },
            "'f': owner 65536 is above 65535",
        ),
    ] {
        assert_eq!(image.refused(&[item]), words);
    }
    let long = "n".repeat(256);
    let mut writer = Writer::default();
    writer.pax(&[("path", long.as_bytes())]);
    writer.item(&Item::file("x", ""));
    let error = image.apply(&writer.end()).unwrap_err().to_string();
    assert_eq!(error, format!("'{long}': file name too long"));
    assert_eq!(fs::read_dir(image.at("")).unwrap().count(), 0);
}

#[test]
fn a_caller_who_hung_up_stops_the_work() {
    let image = Image::new();
    let stop = Stop::default();
    drop(stop.on_drop());
    let bytes = Writer::of(&[Item::file("f", "")]);
    let stopped = unpack(&bytes[..], image.0.path(), &stop);
    assert!(matches!(stopped, Err(BuildError::Stopped)));
    assert!(!image.is_there("f"));
}

#[test]
fn attributes_of_users_and_capabilities_alone() {
    let image = Image::new();
    // Version 2, effective, cap_net_raw.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut writer = Writer::default();
    writer.pax(&[
        ("SCHILY.xattr.security.capability", &capability),
        ("LIBARCHIVE.xattr.user.%61", b"eHk"),
        ("SCHILY.xattr.trusted.x", b"1"),
        ("SCHILY.xattr.security.selinux", b"1"),
    ]);
    writer.item(&Item {
        owner: (1000, 1000),
        ..Item::file("ping", "x")
    });
    image.apply(&writer.end()).unwrap();
    let get = |name: &str| {
        let mut value = vec![0; 64];
        let length = rustix::fs::getxattr(image.at("ping"), name, &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    };
    assert_eq!(get("security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(get("user.a").as_deref(), Some(&b"xy"[..]));
    assert_eq!(get("trusted.x"), None);
    assert_eq!(get("security.selinux"), None);
}

/// GNU tar writes them in four forms.
#[test]
fn sparse_files() {
    let source = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(source.path().join("holes")).unwrap();
    for number in 0..40_u64 {
        file.seek(SeekFrom::Start(number * 1_000_000)).unwrap();
        file.write_all(format!("piece {number}").as_bytes())
            .unwrap();
    }
    file.set_len(50_000_000).unwrap();
    let content = fs::read(source.path().join("holes")).unwrap();
    let pax = |version| {
        vec![
            "--format=pax".to_owned(),
            format!("--sparse-version={version}"),
        ]
    };
    for form in [
        vec!["--format=gnu".to_owned()],
        pax("0.0"),
        pax("0.1"),
        pax("1.0"),
    ] {
        let packed = Command::new("tar")
            .args(["--sparse", "-cf", "-", "-C"])
            .arg(source.path())
            .args(&form)
            .arg("holes")
            .output()
            .unwrap();
        assert!(
            packed.status.success() && packed.stdout.len() < 2_000_000,
            "{form:?}"
        );
        let image = Image::new();
        let done = image.apply(&packed.stdout).unwrap();
        assert!((400..1_000_000).contains(&done.bytes), "{form:?}: {done:?}");
        assert!(fs::read(image.at("holes")).unwrap() == content, "{form:?}");
        let blocks = fs::metadata(image.at("holes")).unwrap().blocks();
        assert!(blocks * 512 < 2_000_000, "{form:?}: {blocks} blocks");
    }
}

#[test]
fn folders_that_nobody_may_enter_are_filled() {
    let image = Image::new();
    image.layer(&[
        Item {
            mode: 0,
            ..Item::folder("shut")
        },
        Item::file("shut/f", "x"),
    ]);
    let mode = fs::metadata(image.at("shut")).unwrap().permissions().mode();
    assert_eq!((mode & 0o7777, image.read("shut/f")), (0, "x".into()));
}
