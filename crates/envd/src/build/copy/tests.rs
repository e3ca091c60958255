use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::*;
use crate::tar::write::{Item, Writer};

/// As both SDKs name entries: relative to the context, folders first.
fn context() -> Vec<u8> {
    Writer::of(&[
        Item::folder("."),
        Item {
            mode: 0o640,
            owner: (70_000, 70_000),
            ..Item::file("a.txt", "a")
        },
        Item::folder("dir/"),
        Item::file("dir/b.txt", "b"),
        Item {
            mode: 0o700,
            ..Item::folder("dir/sub")
        },
        Item::file("dir/sub/ü ber.py", "c"),
        Item::symlink("link", "/etc/passwd"),
        Item::symlink("dir/out", "/etc"),
    ])
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn order(&self, source: &str, target: &str) -> Order {
        Order {
            source: source.to_owned(),
            target: format!("{}/{target}", self.0.path().display()),
            owner: "4711".to_owned(),
            group: "4712".to_owned(),
            mode: None,
        }
    }

    fn run(&self, order: &Order, bytes: &[u8]) -> Result<Done, BuildError> {
        let done = run(order, bytes, &Stop::default());
        assert_eq!(self.private(), 0, "the private folder went");
        done
    }

    /// How many private folders are left anywhere.
    fn private(&self) -> usize {
        fn count(folder: &Path) -> usize {
            let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
            entries
                .map(|entry| {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let own = usize::from(name.starts_with(".casemate"));
                    own + match entry.file_type().unwrap().is_dir() {
                        true => count(&entry.path()),
                        false => 0,
                    }
                })
                .sum()
        }
        count(self.0.path())
    }

    #[track_caller]
    fn copy(&self, source: &str, target: &str) -> Done {
        self.run(&self.order(source, target), &context()).unwrap()
    }

    #[track_caller]
    fn refused(&self, source: &str, target: &str, bytes: &[u8]) -> String {
        let refused = self.run(&self.order(source, target), bytes);
        refused.unwrap_err().to_string()
    }

    #[track_caller]
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let names = fs::read_dir(self.at(path)).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Mode and owner, of the link itself.
    fn facts(&self, path: &str) -> (u32, u32, u32) {
        let found = fs::symlink_metadata(self.at(path)).unwrap();
        (found.mode() & 0o7777, found.uid(), found.gid())
    }
}

#[test]
fn a_file_goes_to_the_exact_path() {
    let place = Place::new();
    let done = place.copy("a.txt", "new/deep/name");
    assert_eq!((done.entries, done.bytes, done.skipped), (8, 3, 0));
    assert_eq!(place.read("new/deep/name"), "a");
    assert_eq!(place.facts("new/deep/name"), (0o640, 4711, 4712));
    // Folders on the way are the owner's, too.
    assert_eq!(place.facts("new/deep"), (0o755, 4711, 4712));
    assert_eq!(
        fs::metadata(place.at("new/deep/name")).unwrap().mtime(),
        1_000_000_000
    );
    // Over what is there, and over a link, which is not followed.
    fs::write(place.at("kept"), "kept").unwrap();
    symlink(place.at("kept"), place.at("new/link")).unwrap();
    place.copy("./dir/b.txt", "new/deep/name");
    place.copy("dir/b.txt", "new/link");
    assert_eq!(place.read("new/deep/name"), "b");
    assert_eq!(
        (place.read("new/link").as_str(), place.read("kept").as_str()),
        ("b", "kept")
    );
}

#[test]
fn a_file_goes_into_a_folder_that_is_there_or_is_asked_for() {
    let place = Place::new();
    fs::create_dir(place.at("there")).unwrap();
    symlink("there", place.at("to-there")).unwrap();
    place.copy("a.txt", "there");
    place.copy("dir/b.txt", "to-there");
    assert_eq!(place.names("there"), ["a.txt", "b.txt"]);
    assert_eq!(place.facts("there").1, 0, "what is there keeps its owner");
    place.copy("a.txt", "new/");
    place.copy("a.txt", "newer/.");
    assert_eq!(
        (place.names("new"), place.names("newer")),
        (vec!["a.txt".into()], vec!["a.txt".into()])
    );
    assert_eq!(place.facts("new"), (0o755, 4711, 4712));
    fs::create_dir(place.at("there/sub")).unwrap();
    fs::create_dir(place.at("there/sub/a.txt")).unwrap();
    let words = place.refused("a.txt", "there/sub", &context());
    assert!(
        words.ends_with("a folder is there, and cannot become a file"),
        "{words}"
    );
}

#[test]
fn a_folder_gives_what_is_in_it() {
    for source in ["dir", "./dir", "dir/", "dir/**", "dir/*.txt"] {
        let place = Place::new();
        place.copy(source, "to/app");
        assert_eq!(place.names("to/app"), ["b.txt", "out", "sub"], "{source}");
        assert_eq!(place.read("to/app/sub/ü ber.py"), "c");
        assert_eq!(place.facts("to/app/sub"), (0o700, 4711, 4712));
        assert_eq!(place.facts("to/app"), (0o755, 4711, 4712));
        assert_eq!(
            fs::read_link(place.at("to/app/out")).unwrap(),
            Path::new("/etc")
        );
        assert_eq!(place.facts("to/app/out"), (0o777, 4711, 4712));
    }
    for source in [".", "*", "d*", "./"] {
        let place = Place::new();
        place.copy(source, "app/");
        assert_eq!(place.names("app"), ["a.txt", "dir", "link"], "{source}");
    }
    assert_eq!(
        fs::metadata("/etc").unwrap().uid(),
        0,
        "links are not followed"
    );
    assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
}

#[test]
fn folders_are_merged() {
    let place = Place::new();
    fs::create_dir_all(place.at("app/sub")).unwrap();
    fs::create_dir_all(place.at("elsewhere")).unwrap();
    fs::write(place.at("app/own"), "own").unwrap();
    fs::write(place.at("app/b.txt"), "old").unwrap();
    symlink(place.at("app/own"), place.at("app/out")).unwrap();
    place.copy("dir", "app");
    assert_eq!(place.names("app"), ["b.txt", "out", "own", "sub"]);
    assert_eq!(
        (place.read("app/b.txt"), place.read("app/own")),
        ("b".into(), "own".into())
    );
    // A folder that is there keeps its facts; a link to a file is replaced.
    assert_eq!(place.facts("app/sub"), (0o755, 0, 0));
    assert_eq!(
        fs::read_link(place.at("app/out")).unwrap(),
        Path::new("/etc")
    );
    // A link to a folder is followed.
    fs::remove_dir_all(place.at("app/sub")).unwrap();
    symlink(place.at("elsewhere"), place.at("app/sub")).unwrap();
    place.copy("dir", "app");
    assert_eq!(place.names("elsewhere"), ["ü ber.py"]);
    fs::remove_file(place.at("app/sub")).unwrap();
    fs::write(place.at("app/sub"), "in the way").unwrap();
    let words = place.refused("dir", "app", &context());
    assert!(
        words.ends_with("a file is there, and cannot become a folder"),
        "{words}"
    );
    let words = place.refused("dir", "app/own", &context());
    assert!(words.ends_with("not a directory"), "{words}");
}

#[test]
fn a_link_is_copied_as_it_is() {
    let place = Place::new();
    let mut order = place.order("link", "x/");
    order.mode = Some(0o600);
    place.run(&order, &context()).unwrap();
    assert_eq!(
        fs::read_link(place.at("x/link")).unwrap(),
        Path::new("/etc/passwd")
    );
    assert_eq!(place.facts("x/link"), (0o777, 4711, 4712));
    assert_eq!(fs::metadata("/etc/passwd").unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn a_mode_is_for_files_and_folders_alike() {
    let place = Place::new();
    let mut order = place.order("dir", "app");
    order.mode = Some(0o751);
    place.run(&order, &context()).unwrap();
    for path in ["app/b.txt", "app/sub", "app/sub/ü ber.py"] {
        assert_eq!(place.facts(path), (0o751, 4711, 4712), "{path}");
    }
    assert_eq!(place.facts("app").0, 0o755);
}

#[test]
fn what_is_not_there_is_named() {
    let place = Place::new();
    for source in [
        "gone",
        "dir/gone",
        "a.txt/x",
        "link/x",
        "dir/out/passwd",
        "gone/*.py",
    ] {
        assert_eq!(
            place.refused(source, "x", &context()),
            format!("source path does not exist: {source}")
        );
    }
    assert!(place.refused("../x", "x", &context()).contains("'..'"));
    let mut order = place.order("a.txt", "x");
    order.owner = "nobody-here".to_owned();
    let refused = place.run(&order, &context()).unwrap_err();
    assert_eq!(refused.to_string(), "user 'nobody-here' does not exist");
    assert!(place.names("").is_empty());
}

#[test]
fn packed_or_not() {
    let place = Place::new();
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&context()).unwrap();
    let packed = packer.finish().unwrap();
    place.run(&place.order(".", "app"), &packed).unwrap();
    assert_eq!(place.names("app"), ["a.txt", "dir", "link"]);
    // Broken in the middle, and in the checksum behind the archive.
    let mut flipped = packed.clone();
    let end = flipped.len() - 6;
    flipped[end] ^= 0xff;
    for broken in [
        &packed[..packed.len() / 2],
        &packed[..1],
        &packed[..0],
        &flipped,
    ] {
        let words = place.refused(".", "broken", broken);
        assert!(words.contains("archive"), "{words}");
    }
    assert!(!place.at("broken").exists());
}

#[test]
fn hostile_archives_leave_nothing() {
    let place = Place::new();
    for (items, words) in [
        (
            vec![Item::file("/etc/x", "")],
            "'/etc/x': a name must not be absolute",
        ),
        (
            vec![Item::file("a/../../x", "")],
            "'a/../../x': a name must not contain '..'",
        ),
        (
            vec![Item::of(b'3', "dev")],
            "'dev': devices and pipes cannot be copied",
        ),
        (
            vec![Item::of(b'6', "pipe")],
            "'pipe': devices and pipes cannot be copied",
        ),
        (
            vec![Item::hard_link("h", "/etc/passwd")],
            "'h': a hard link must not lead to an absolute name",
        ),
        (
            vec![Item::hard_link("h", "f")],
            "'h': hard link to 'f', which is not there",
        ),
        (
            vec![Item::symlink("l", "/etc"), Item::hard_link("h", "l/passwd")],
            "'h': too many levels of symbolic links",
        ),
        (
            vec![Item::symlink("l", "/etc"), Item::file("l/x", "")],
            "'l/x': too many levels of symbolic links",
        ),
        (vec![Item::file(".", "")], "'.': the root must be a folder"),
    ] {
        assert_eq!(place.refused(".", "x", &Writer::of(&items)), words);
    }
    assert!(place.names("").is_empty());
    // A link that was replaced by a folder is one no longer.
    let items = [
        Item::symlink("l", "/etc"),
        Item::folder("l"),
        Item::file("l/x", "1"),
        Item::hard_link("again", "l/x"),
    ];
    place
        .run(&place.order(".", "x"), &Writer::of(&items))
        .unwrap();
    assert_eq!(
        (place.read("x/l/x"), place.read("x/again")),
        ("1".into(), "1".into())
    );
}

#[test]
fn a_caller_who_hung_up_leaves_nothing() {
    let place = Place::new();
    let stop = Stop::default();
    drop(stop.on_drop());
    let stopped = run(&place.order(".", "x"), &context()[..], &stop);
    assert!(matches!(stopped, Err(BuildError::Stopped)));
    assert!(place.names("").is_empty());
}

#[test]
fn orders() {
    let read = |query: &str| Order::read(Some(query)).map_err(|error| error.to_string());
    let order = read("source=a&target=b%20c/&owner=u&mode=0755&workdir=/w").unwrap();
    let expected = Order {
        source: "a".into(),
        target: "/w/b c/".into(),
        owner: "u".into(),
        group: "u".into(),
        mode: Some(0o755),
    };
    assert_eq!(order, expected);
    let plain = read("source=a&target=/b&owner=u&group=g&mode=").unwrap();
    assert_eq!((plain.group.as_str(), plain.mode), ("g", None));
    let long = format!("source=a&target=/{}&owner=u", "x".repeat(5000));
    for (query, words) in [
        ("target=/b&owner=u", "source is required"),
        ("source=a&owner=u", "target is required"),
        ("source=a&target=/b", "owner is required"),
        (
            "source=a&target=b&owner=u",
            "a relative target needs an absolute workdir",
        ),
        (
            "source=a&target=b&owner=u&workdir=w",
            "a relative target needs an absolute workdir",
        ),
        ("source=a&target=/b&owner=u&mode=9", "mode must be octal"),
        (
            "source=a&target=/b&owner=u&mode=77777",
            "mode must be octal",
        ),
        (
            "source=a&target=/b%00&owner=u",
            "target is not a possible path",
        ),
        (&long, "target is not a possible path"),
    ] {
        assert_eq!(read(query).unwrap_err(), words, "{query}");
    }
}
