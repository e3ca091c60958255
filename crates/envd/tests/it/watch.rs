use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Server, eventually};
use crate::streams::{Stream, refused};

struct Polled {
    server: Server,
    id: String,
    gathered: Vec<Value>,
}

impl Polled {
    fn create(dir: &TempDir, more: &Value) -> Self {
        let server = Server::open();
        let mut body = json!({"path": dir.path().to_str().unwrap()});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let reply = server
            .call("Filesystem/CreateWatcher", &body)
            .expect(200)
            .json();
        let id = reply["watcherId"].as_str().unwrap().to_owned();
        let mut polled = Self {
            server,
            id,
            gathered: Vec::new(),
        };
        polled.fetch();
        assert!(polled.gathered.is_empty());
        polled
    }

    fn fetch(&mut self) {
        let body = json!({"watcherId": self.id});
        let reply = self
            .server
            .call("Filesystem/GetWatcherEvents", &body)
            .expect(200)
            .json();
        self.gathered
            .extend(reply["events"].as_array().cloned().unwrap_or_default());
    }

    /// Type and name of all events up to the one that ends with `last`.
    fn until(&mut self, last: (&str, &str)) -> Vec<(String, String)> {
        eventually("the last event", || {
            self.fetch();
            let all = short(&self.gathered);
            let done = all
                .iter()
                .any(|(kind, name)| (kind.as_str(), name.as_str()) == last);
            done.then_some(all)
        })
    }
}

fn short(events: &[Value]) -> Vec<(String, String)> {
    events
        .iter()
        .map(|event| {
            let kind = event["type"]
                .as_str()
                .unwrap()
                .trim_start_matches("EVENT_TYPE_");
            (kind.to_owned(), event["name"].as_str().unwrap().to_owned())
        })
        .collect()
}

fn owned(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events
        .iter()
        .map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned()))
        .collect()
}

#[test]
fn direct_children() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let mut watcher = Polled::create(&dir, &json!({}));
    fs::write(dir.path().join("sub/unseen"), "x").unwrap();
    fs::write(dir.path().join("a"), "x").unwrap();
    fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
    fs::remove_file(dir.path().join("b")).unwrap();
    let events = watcher.until(("REMOVE", "b"));
    let expected = [
        ("CREATE", "a"),
        ("WRITE", "a"),
        ("RENAME", "a"),
        ("CREATE", "b"),
        ("REMOVE", "b"),
    ];
    assert_eq!(events, owned(&expected));
    assert!(
        watcher
            .gathered
            .iter()
            .all(|event| event.get("entry").is_none())
    );

    let body = json!({"watcherId": watcher.id});
    watcher
        .server
        .call("Filesystem/RemoveWatcher", &body)
        .expect(200);
    for method in ["GetWatcherEvents", "RemoveWatcher"] {
        let message =
            watcher
                .server
                .call_fails(&format!("Filesystem/{method}"), &body, "not_found");
        assert_eq!(message, format!("watcher with id {} not found", watcher.id));
    }
}

#[test]
fn whole_trees_old_and_new() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("old/deep")).unwrap();
    let mut watcher = Polled::create(&dir, &json!({"recursive": true}));
    fs::write(dir.path().join("old/deep/f"), "x").unwrap();
    watcher.until(("WRITE", "old/deep/f"));
    // Filled before anybody could have watched it: nothing is missed, nothing told twice.
    watcher.gathered.clear();
    fs::create_dir_all(dir.path().join("new/a/b")).unwrap();
    fs::write(dir.path().join("new/a/b/f"), "x").unwrap();
    let until = watcher.until(("CREATE", "new/a/b/f"));
    let created: Vec<_> = until
        .into_iter()
        .filter(|(kind, _)| kind == "CREATE")
        .collect();
    assert_eq!(created.len(), 4, "{created:?}");
    // After a move, paths are the new ones.
    fs::rename(dir.path().join("new"), dir.path().join("moved")).unwrap();
    watcher.until(("CREATE", "moved"));
    fs::write(dir.path().join("moved/a/b/g"), "x").unwrap();
    let events = watcher.until(("CREATE", "moved/a/b/g"));
    assert!(events.contains(&("RENAME".to_owned(), "new".to_owned())));
    assert!(!events.iter().any(|(_, name)| name == "new/a/b/g"));
    // Made again under a name that was told before.
    watcher.gathered.clear();
    fs::remove_file(dir.path().join("moved/a/b/f")).unwrap();
    fs::write(dir.path().join("moved/a/b/f"), "x").unwrap();
    let events = watcher.until(("CREATE", "moved/a/b/f"));
    // A late word about its neighbour may come in between.
    let first = events.iter().find(|(_, name)| name == "moved/a/b/f");
    assert_eq!(first.map(|(kind, _)| kind.as_str()), Some("REMOVE"));
}

#[test]
fn entries_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let mut watcher = Polled::create(&dir, &json!({"includeEntry": true}));
    let path = dir.path().join("a");
    fs::write(&path, "x").unwrap();
    watcher.until(("WRITE", "a"));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "again").unwrap();
    watcher.until(("REMOVE", "a"));
    for event in &watcher.gathered {
        match event["type"].as_str().unwrap() {
            "EVENT_TYPE_REMOVE" => assert_eq!(event.get("entry"), None),
            _ => assert_eq!(
                event["entry"]["path"],
                json!(path.to_str().unwrap()),
                "{event}"
            ),
        }
    }
}

#[test]
fn what_cannot_be_watched() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    fs::write(&file, "").unwrap();
    let server = Server::open();
    for (path, code, words) in [
        (dir.path().join("no"), "not_found", "not found"),
        (file, "invalid_argument", "not a directory"),
    ] {
        let body = json!({"path": path.to_str().unwrap()});
        let message = server.call_fails("Filesystem/CreateWatcher", &body, code);
        assert!(message.contains(words), "{message}");
        let stream = Stream::open(&server, "Filesystem/WatchDir", &[], &body);
        assert_eq!(refused(stream).0, code);
    }
}

#[test]
fn a_stream_of_events() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::open();
    let headers = [
        ("keepalive-ping-interval", "1"),
        ("connect-timeout-ms", "1500"),
    ];
    let body = json!({"path": dir.path().to_str().unwrap()});
    let mut stream = Stream::open(&server, "Filesystem/WatchDir", &headers, &body);
    assert_eq!(stream.next(), (0, json!({"start": {}})));
    fs::write(dir.path().join("a"), "").unwrap();
    let created = json!({"filesystem": {"name": "a", "type": "EVENT_TYPE_CREATE"}});
    assert_eq!(stream.next(), (0, created));
    assert_eq!(stream.next(), (0, json!({"keepalive": {}})));
    // Nor does the end of the directory end it: only the deadline does.
    fs::remove_dir_all(dir.path()).unwrap();
    let (events, end) = stream.rest();
    assert!(
        events
            .iter()
            .any(|event| event["filesystem"]["name"] == "."),
        "{events:?}"
    );
    assert_eq!(end["error"]["code"], "deadline_exceeded");
}

#[test]
fn watchers_are_bounded_and_freed_by_hanging_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::open();
    let body = json!({"path": dir.path().to_str().unwrap()});
    let mut open = Vec::new();
    let code = loop {
        let mut stream = Stream::open(&server, "Filesystem/WatchDir", &[], &body);
        match stream.next() {
            (0, _) => open.push(stream),
            (_, end) => break end["error"]["code"].as_str().unwrap().to_owned(),
        }
        assert!(open.len() <= 128);
    };
    // The kernel's own limit may be lower than ours.
    assert!(code == "resource_exhausted" || code == "internal", "{code}");
    drop(open);
    eventually("the places are free again", || {
        let reply = server.call("Filesystem/CreateWatcher", &body);
        (reply.status == 200).then_some(())
    });
}
