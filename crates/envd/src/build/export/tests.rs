use std::fs;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{XattrFlags, setxattr};

use super::super::input::Stop;
use super::*;

/// Packs `from` and unpacks it into a new folder as a layer.
fn round(from: &Path) -> tempfile::TempDir {
    let mut bytes = Vec::new();
    walk::pack(&mut bytes, from).unwrap();
    let into = tempfile::tempdir().unwrap();
    super::super::layer::unpack(bytes.as_slice(), into.path(), &Stop::default()).unwrap();
    into
}

/// What another program says of all files.
fn listed(dir: &Path) -> String {
    let script = "find . -printf '%P %y %m %U:%G %n %T@ %s %l\\n' | sort; \
                  getfattr -Rhd -m - . 2>/dev/null | sort; find . -type f -exec sha256sum {} + | sort";
    let ran = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .output();
    String::from_utf8(ran.unwrap().stdout).unwrap()
}

#[test]
fn files_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/one"), "1").unwrap();
    fs::set_permissions(at("a/one"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::hard_link(at("a/one"), at("a/b/two")).unwrap();
    symlink("../gone", at("link")).unwrap();
    fs::write(at(&"n".repeat(200)), vec![7; 300_000]).unwrap();
    fs::write(at("empty"), "").unwrap();
    let pipe = Command::new("mkfifo")
        .args(["-m", "620"])
        .arg(at("pipe"))
        .status();
    assert!(pipe.unwrap().success());
    fs::create_dir(at("sticky")).unwrap();
    fs::set_permissions(at("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(at("link"), Some(12), Some(34)).unwrap();
        std::os::unix::fs::chown(at("empty"), Some(1000), Some(65_535)).unwrap();
    }
    let has_attributes = setxattr(at("a"), "user.a", b"\0\n", XattrFlags::empty()).is_ok();
    if has_attributes {
        setxattr(at("a/one"), "user.b", &[b'x'; 3000], XattrFlags::empty()).unwrap();
    }
    // The root's own time does not travel.
    let root = fs::File::open(dir.path()).unwrap();
    root.set_times(fs::FileTimes::new().set_modified(UNIX_EPOCH))
        .unwrap();
    let back = round(dir.path());
    assert_eq!(listed(back.path()), listed(dir.path()));
    let links = |dir: &Path| {
        let inode = |name| fs::metadata(dir.join(name)).unwrap().ino();
        inode("a/one") == inode("a/b/two")
    };
    assert!(links(back.path()));
}

#[test]
fn holes_stay_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let mut file = fs::File::create(&path).unwrap();
    for offset in [0, 3 << 20, 9 << 20] {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(b"data").unwrap();
    }
    file.set_len(1 << 26).unwrap();
    fs::File::create(dir.path().join("hole"))
        .unwrap()
        .set_len(1 << 26)
        .unwrap();
    let mut bytes = Vec::new();
    walk::pack(&mut bytes, dir.path()).unwrap();
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    let back = round(dir.path());
    for name in ["sparse", "hole"] {
        let (old, new) = (dir.path().join(name), back.path().join(name));
        let found = fs::metadata(&new).unwrap();
        assert_eq!(found.len(), 1 << 26);
        assert!(found.blocks() * 512 < 1 << 20);
        let same = Command::new("cmp").args([&old, &new]).status().unwrap();
        assert!(same.success(), "{name}");
    }
    // Another reader.
    let tar = dir.path().join("archive");
    fs::write(&tar, &bytes).unwrap();
    let into = tempfile::tempdir().unwrap();
    let mut command = Command::new("tar");
    command.arg("-xf").arg(&tar).arg("-C").arg(into.path());
    assert!(command.status().unwrap().success());
    let same = Command::new("cmp")
        .args([&path, &into.path().join("sparse")])
        .status();
    assert!(same.unwrap().success());
}

#[test]
fn what_is_of_one_machine_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["proc", "tmp/inner", "run", "etc", "srv/tmp"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    for file in ["proc/x", "tmp/x", "run/x", "srv/tmp/x"] {
        fs::write(dir.path().join(file), "x").unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let hosts = "127.0.0.1 localhost\n127.0.1.1 mine\n";
    fs::write(
        dir.path().join("etc/hosts"),
        format!("{hosts}127.0.1.1 i9lsxf4dt5lozp5z1ww28\n"),
    )
    .unwrap();
    let back = round(dir.path());
    let names = |folder: &str| fs::read_dir(back.path().join(folder)).unwrap().count();
    assert_eq!(
        (names("proc"), names("tmp"), names("run"), names("srv/tmp")),
        (0, 0, 0, 1)
    );
    assert!(!back.path().join("socket").exists());
    assert_eq!(
        fs::read_to_string(back.path().join("etc/hosts")).unwrap(),
        hosts
    );
}

#[test]
fn the_same_files_are_the_same_archive_on_another_machine() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["etc", "run", "tmp"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let packed = |second, name: &str| {
        let time = UNIX_EPOCH + Duration::from_secs(second);
        let times = fs::FileTimes::new().set_modified(time);
        let hosts = format!("127.0.0.1 localhost\n127.0.1.1 {name}\n");
        fs::write(dir.path().join("etc/hosts"), hosts).unwrap();
        for path in ["etc/hosts", "run", "tmp", "."] {
            let file = fs::File::open(dir.path().join(path)).unwrap();
            file.set_times(times).unwrap();
        }
        let mut bytes = Vec::new();
        walk::pack(&mut bytes, dir.path()).unwrap();
        bytes
    };
    let one = packed(1_700_000_000, "i9lsxf4dt5lozp5z1ww28");
    assert!(one == packed(1_700_000_001, "i9lsxf4dt5lozp5z1ww29"));
}

#[test]
fn who_takes_no_more_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), vec![1; 4 * FILE_CHUNK_BYTES]).unwrap();
    let (sender, pieces) = mpsc::channel(1);
    drop(pieces);
    let packed = walk::pack(Output::new(sender), dir.path());
    let Err(BuildError::Send(error)) = packed else {
        panic!("{packed:?}");
    };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_name_that_nobody_could_unpack_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut at = rustix::fs::open(
        dir.path(),
        rustix::fs::OFlags::PATH,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let name = "d".repeat(250);
    for _ in 0..17 {
        rustix::fs::mkdirat(&at, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::PATH;
        at = rustix::fs::openat(&at, name.as_str(), flags, rustix::fs::Mode::empty()).unwrap();
    }
    for outcome in [check::check(dir.path()), walk::pack(io::sink(), dir.path())] {
        assert!(
            matches!(outcome, Err(BuildError::Entry { .. })),
            "{outcome:?}"
        );
    }
}

#[test]
fn a_name_that_would_take_another_away_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("srv/inner")).unwrap();
    fs::create_dir_all(dir.path().join("tmp")).unwrap();
    fs::write(dir.path().join("srv/x.wh.x"), "").unwrap();
    fs::write(dir.path().join("tmp/.wh.x"), "").unwrap();
    symlink("/", dir.path().join("srv/root")).unwrap();
    check::check(dir.path()).unwrap();
    fs::write(dir.path().join("srv/inner/.wh.x"), "").unwrap();
    let refused = check::check(dir.path()).unwrap_err();
    assert!(
        refused.to_string().starts_with("'srv/inner/.wh.x': "),
        "{refused}"
    );
}
