use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::Server;

struct Place {
    server: Server,
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            server: Server::open(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn ok(&self, method: &str, body: &Value) -> Value {
        self.server
            .call(&format!("Filesystem/{method}"), body)
            .expect(200)
            .json()
    }

    #[track_caller]
    fn fails(&self, method: &str, body: &Value, code: &str, words: &str) {
        let message = self
            .server
            .call_fails(&format!("Filesystem/{method}"), body, code);
        assert!(message.contains(words), "{message}");
    }
}

fn daemon() -> (&'static str, String) {
    (
        "authorization",
        format!("Basic {}", STANDARD.encode("daemon:")),
    )
}

#[test]
fn a_file() {
    let place = Place::new();
    let path = place.at("a.txt");
    fs::write(&path, "hello world..").unwrap();
    let entry = place.ok("Stat", &json!({"path": path}))["entry"].clone();
    assert_eq!(entry["name"], "a.txt");
    assert_eq!(entry["type"], "FILE_TYPE_FILE");
    assert_eq!(entry["path"], json!(path));
    assert_eq!(entry["size"], "13");
    assert_eq!(entry["mode"], 0o644);
    assert_eq!(entry["permissions"], "-rw-r--r--");
    assert_eq!(
        (&entry["owner"], &entry["group"]),
        (&json!("root"), &json!("root"))
    );
    assert!(entry["modifiedTime"].as_str().unwrap().ends_with('Z'));
    assert_eq!(entry.get("symlinkTarget"), None);
    assert_eq!(entry.get("isSymlink"), None);
    place.fails(
        "Stat",
        &json!({"path": place.at("no")}),
        "not_found",
        "no such file or directory",
    );
    place.fails(
        "Stat",
        &json!({"path": place.at("a.txt/x")}),
        "internal",
        "error getting file info",
    );
    place.fails(
        "Stat",
        &json!({"path": "~other/x"}),
        "invalid_argument",
        "home dir",
    );
}

#[test]
fn directories_belong_to_the_user() {
    let place = Place::new();
    let (name, value) = daemon();
    let path = place.at("x/y/z");
    let reply = place
        .server
        .call_with(
            "Filesystem/MakeDir",
            &[(name, &value)],
            &json!({"path": path}),
        )
        .expect(200)
        .json();
    let entry = &reply["entry"];
    assert_eq!(entry["type"], "FILE_TYPE_DIRECTORY");
    assert_eq!(
        (&entry["mode"], &entry["permissions"]),
        (&json!(0o755), &json!("drwxr-xr-x"))
    );
    assert_eq!(
        (&entry["owner"], &entry["group"]),
        (&json!("daemon"), &json!("daemon"))
    );
    assert_eq!(fs::metadata(place.at("x")).unwrap().uid(), 1);

    fs::write(place.at("f"), "").unwrap();
    place.fails(
        "MakeDir",
        &json!({"path": path}),
        "already_exists",
        "directory already exists",
    );
    place.fails(
        "MakeDir",
        &json!({"path": place.at("f")}),
        "invalid_argument",
        "not a directory",
    );
    place.fails(
        "MakeDir",
        &json!({"path": place.at("f/x")}),
        "internal",
        "not a directory",
    );
}

#[test]
fn moving() {
    let place = Place::new();
    let (a, b) = (place.at("a"), place.at("new/dir/b"));
    fs::write(&a, "content").unwrap();
    let reply = place.ok("Move", &json!({"source": a, "destination": b}));
    assert_eq!(reply["entry"]["path"], json!(b));
    assert_eq!(fs::read_to_string(&b).unwrap(), "content");
    symlink("dir/b", place.at("new/link")).unwrap();
    let (link, moved) = (place.at("new/link"), place.at("new/moved"));
    let reply = place.ok("Move", &json!({"source": link, "destination": moved}));
    assert_eq!(
        reply["entry"]["symlinkTarget"],
        json!(fs::canonicalize(&b).unwrap())
    );
    assert_eq!(fs::read_link(&moved).unwrap().to_str(), Some("dir/b"));
    // Over an existing file, but not over a directory with something in it.
    fs::write(&a, "newer").unwrap();
    place.ok("Move", &json!({"source": a, "destination": b}));
    assert_eq!(fs::read_to_string(&b).unwrap(), "newer");
    fs::create_dir(&a).unwrap();
    let full = json!({"source": a, "destination": place.at("new")});
    place.fails("Move", &full, "internal", "error renaming");
    let gone = json!({"source": place.at("gone"), "destination": place.at("p/q")});
    place.fails("Move", &gone, "not_found", "source file not found");
    assert!(fs::metadata(place.at("p")).unwrap().is_dir());
}

#[test]
fn removing() {
    let place = Place::new();
    fs::create_dir_all(place.at("d/e/f")).unwrap();
    fs::write(place.at("d/e/file"), "").unwrap();
    fs::write(place.at("kept"), "").unwrap();
    symlink(place.at("kept"), place.at("d/link")).unwrap();
    symlink(place.at("d"), place.at("to-dir")).unwrap();
    place.ok("Remove", &json!({"path": place.at("to-dir")}));
    assert!(fs::metadata(place.at("d/e")).is_ok());
    place.ok("Remove", &json!({"path": place.at("d")}));
    assert!(fs::symlink_metadata(place.at("d")).is_err());
    assert!(fs::metadata(place.at("kept")).is_ok());
    place.ok("Remove", &json!({"path": place.at("d")}));
}

#[test]
fn listing() {
    let place = Place::new();
    fs::create_dir_all(place.at("d/sub/deep")).unwrap();
    fs::write(place.at("d/b"), "").unwrap();
    symlink("nowhere", place.at("d/broken")).unwrap();
    symlink("sub", place.at("d/link")).unwrap();
    symlink("d", place.at("alias")).unwrap();
    let list = |name: &str, depth: u32| {
        let reply = place.ok("ListDir", &json!({"path": place.at(name), "depth": depth}));
        let entries = reply["entries"].as_array().unwrap().clone();
        let root = place.at(name);
        entries
            .iter()
            .map(|entry| {
                entry["path"]
                    .as_str()
                    .unwrap()
                    .strip_prefix(&root)
                    .unwrap()
                    .to_owned()
            })
            .collect::<Vec<_>>()
    };
    for depth in [0, 1] {
        assert_eq!(list("d", depth), ["/b", "/broken", "/link", "/sub"]);
    }
    assert_eq!(
        list("alias", 2),
        ["/b", "/broken", "/link", "/sub", "/sub/deep"]
    );
    let reply = place.ok("ListDir", &json!({"path": place.at("d")}));
    let broken = &reply["entries"][1];
    assert_eq!(broken.get("type"), None, "unspecified is the default");
    assert_eq!(broken["isSymlink"], true);
    assert_eq!(
        broken["symlinkTarget"],
        json!(place.dir.path().canonicalize().unwrap().join("d/broken"))
    );
    let link = &reply["entries"][2];
    assert_eq!(
        (&link["type"], &link["permissions"]),
        (&json!("FILE_TYPE_DIRECTORY"), &json!("Lrwxrwxrwx"))
    );

    place.fails(
        "ListDir",
        &json!({"path": place.at("no")}),
        "not_found",
        "path not found",
    );
    place.fails(
        "ListDir",
        &json!({"path": place.at("d/b")}),
        "invalid_argument",
        "not a directory",
    );
    symlink("self", place.at("self")).unwrap();
    place.fails(
        "ListDir",
        &json!({"path": place.at("self")}),
        "failed_precondition",
        "cyclic symlink",
    );
    let empty = place.ok("ListDir", &json!({"path": place.at("d/sub/deep")}));
    assert_eq!(empty, json!({}));
}
