use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::http::Reply;
use crate::server::{Server, TOKEN};

const RAW: (&str, &str) = ("content-type", "application/octet-stream");
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=XyZ");

struct Place {
    server: Server,
    dir: TempDir,
}

impl Place {
    fn new(server: Server) -> Self {
        Self {
            server,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn url(&self, name: &str) -> String {
        format!("/files?path={}", self.at(name).replace(' ', "%20"))
    }

    fn write(&self, name: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let headers = [&[RAW], headers].concat();
        self.server.request("POST", &self.url(name), &headers, body)
    }

    fn read(&self, name: &str, headers: &[(&str, &str)]) -> Reply {
        self.server.request("GET", &self.url(name), headers, b"")
    }

    fn form(&self, query: &str, parts: &[(&str, &str)]) -> Reply {
        let mut body = Vec::new();
        for (disposition, content) in parts {
            let head = format!("--XyZ\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(content.as_bytes());
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--XyZ--\r\n");
        self.server
            .request("POST", &format!("/files{query}"), &[FORM], &body)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn message(reply: &Reply) -> String {
    let json = reply.json();
    assert_eq!(json["code"], reply.status);
    assert_eq!(
        reply.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    json["message"].as_str().unwrap().to_owned()
}

#[test]
fn raw_there_and_back() {
    let place = Place::new(Server::open());
    let data: Vec<u8> = (0..1_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let reply = place.write("new/dir/my file.bin", &[], &data).expect(200);
    let path = place.at("new/dir/my file.bin");
    assert_eq!(
        reply.json(),
        json!([{"name": "my file.bin", "path": path, "type": "file"}])
    );
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);

    let reply = place.read("new/dir/my file.bin", &[]).expect(200);
    assert!(reply.body == data);
    assert_eq!(
        reply.header("content-disposition"),
        Some("inline; filename=\"my file.bin\"")
    );
    assert_eq!(reply.header("content-length"), Some("1000000"));
    assert_eq!(
        reply.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(reply.header("accept-ranges"), Some("bytes"));
    assert!(reply.header("vary").unwrap().contains("Accept-Encoding"));
    assert!(reply.header("last-modified").is_some());
    assert_eq!(reply.header("etag"), None);

    let reply = place.read(
        "new/dir/my file.bin",
        &[("accept-encoding", "gzip, deflate")],
    );
    let reply = reply.expect(200);
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(reply.header("content-length"), None);
    let mut plain = Vec::new();
    GzDecoder::new(&reply.body[..])
        .read_to_end(&mut plain)
        .unwrap();
    assert!(plain == data);

    // Over what is there, and nothing is something, too.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    place.write("new/dir/my file.bin", &[], b"").expect(200);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let reply = place.read("new/dir/my file.bin", &[]).expect(200);
    assert_eq!(
        (reply.header("content-length"), reply.body.len()),
        (Some("0"), 0)
    );
}

#[test]
fn compressed_uploads() {
    let place = Place::new(Server::open());
    let data = vec![b'a'; 3_000_000];
    place
        .write("a", &[("content-encoding", "gzip")], &gzip(&data))
        .expect(200);
    assert!(fs::read(place.at("a")).unwrap() == data);
    place
        .write("i", &[("content-encoding", "identity")], b"x")
        .expect(200);
    for (encoding, body) in [("gzip", &b"not gzip"[..]), ("gzip", b""), ("br", b"x")] {
        let reply = place
            .write("b", &[("content-encoding", encoding)], body)
            .expect(400);
        assert!(message(&reply).starts_with("error decompressing request body: "));
    }
}

#[test]
fn users_and_owners() {
    let place = Place::new(Server::open());
    let url = format!("{}&username=daemon", place.url("d/f"));
    place.server.request("POST", &url, &[RAW], b"x").expect(200);
    for name in ["d", "d/f"] {
        let found = fs::metadata(place.at(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (1, 1));
    }
    for name in ["", "nobody-here"] {
        let url = format!("{}&username={name}", place.url("d/f"));
        for method in ["GET", "POST"] {
            let reply = place.server.request(method, &url, &[RAW], b"x").expect(401);
            let expected = format!("error looking up user '{name}': user: unknown user {name}");
            assert_eq!(message(&reply), expected);
        }
    }
}

#[test]
fn downloads_that_fail() {
    let place = Place::new(Server::open());
    fs::write(place.at("f"), "x").unwrap();
    let gone = place.read("gone", &[]).expect(404);
    assert_eq!(
        message(&gone),
        format!("path '{}' does not exist", place.at("gone"))
    );
    let dir = place.read("", &[]).expect(400);
    assert_eq!(
        message(&dir),
        format!("path '{}' is a directory", place.at(""))
    );
    let below = place.read("f/x", &[]).expect(500);
    assert!(message(&below).starts_with("error checking if path exists"));
    let home = place.server.get("/files?path=~other/x").expect(400);
    assert!(message(&home).starts_with("error expanding and resolving path '~other/x'"));
    let none = place
        .read("f", &[("accept-encoding", "identity;q=0")])
        .expect(406);
    assert_eq!(
        message(&none),
        "error parsing Accept-Encoding: no acceptable encoding found, supported: [gzip]"
    );
    let both = [
        ("accept-encoding", "gzip, identity;q=0"),
        ("range", "bytes=0-0"),
    ];
    let none = place.read("f", &both).expect(406);
    assert_eq!(
        message(&none),
        "identity encoding not acceptable for Range or conditional request"
    );
    symlink("loop", place.at("loop")).unwrap();
    place.read("loop", &[]).expect(500);
    let pipe = std::process::Command::new("mkfifo")
        .arg(place.at("pipe"))
        .status()
        .unwrap();
    assert!(pipe.success());
    // A pipe holds nothing up, whether somebody is at its other end or not.
    let channel = |name: &str| {
        let refused = place.read(name, &[]).expect(400);
        let at = place.at(name);
        let said = format!("path '{}' is not a regular file", at);
        assert_eq!(message(&refused), said);
        let refused = place.write(name, &[], b"x").expect(400);
        let said = format!("path is not a regular file: {}", at);
        assert_eq!(message(&refused), said);
    };
    channel("pipe");
    let _both_ends = fs::File::options()
        .read(true)
        .write(true)
        .open(place.at("pipe"))
        .unwrap();
    channel("pipe");
    let _listener = std::os::unix::net::UnixListener::bind(place.at("socket")).unwrap();
    channel("socket");
    place.server.get("/health").expect(204);
}

#[test]
fn parts_and_conditions() {
    let place = Place::new(Server::open());
    fs::write(place.at("f.txt"), "0123456789").unwrap();
    let range = |value| place.read("f.txt", &[("range", value), ("accept-encoding", "gzip")]);
    let one = range("bytes=2-4").expect(206);
    assert_eq!(
        (one.text(), one.header("content-range")),
        ("234", Some("bytes 2-4/10"))
    );
    assert_eq!(one.header("content-length"), Some("3"));
    assert_eq!(range("bytes=-2").expect(206).text(), "89");
    let beyond = range("bytes=50-").expect(416);
    assert_eq!(beyond.header("content-range"), Some("bytes */10"));
    let several = range("bytes=0-0,9-9").expect(206);
    assert!(
        several
            .header("content-type")
            .unwrap()
            .starts_with("multipart/byteranges; boundary=")
    );
    assert!(several.text().contains("Content-Range: bytes 9-9/10\r\n"));
    assert_eq!(
        several.header("content-length").unwrap(),
        several.body.len().to_string()
    );

    let whole = place.read("f.txt", &[]).expect(200);
    let modified = whole.header("last-modified").unwrap();
    let same = place
        .read("f.txt", &[("if-modified-since", modified)])
        .expect(304);
    assert!(same.body.is_empty());
    place
        .read(
            "f.txt",
            &[("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT")],
        )
        .expect(200);
    place
        .read("f.txt", &[("range", "bytes=0-0"), ("if-range", modified)])
        .expect(206);
    let other = [
        ("range", "bytes=0-0"),
        ("if-range", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ];
    place.read("f.txt", &other).expect(200);
}

#[test]
fn files_of_the_kernel_have_content() {
    let server = Server::open();
    let reply = server.get("/files?path=/proc/version").expect(200);
    assert!(reply.text().starts_with("Linux version"));
    assert_eq!(
        server.get("/files?path=/dev/zero").expect(200).body.len(),
        0
    );
}

#[test]
fn forms() {
    let place = Place::new(Server::open());
    let (a, b) = (place.at("deep/a b.txt"), place.at("b\"c"));
    let reply = place
        .form(
            "",
            &[
                (&format!("name=\"file\"; filename=\"{a}\""), "one\r\n--Xy"),
                ("name=\"other\"; filename=\"skipped\"", "no"),
                (
                    &format!("name=\"file\"; filename=\"{}\"", b.replace('"', "%22")),
                    "",
                ),
            ],
        )
        .expect(200);
    let expected = json!([
        {"name": "a b.txt", "path": a, "type": "file"},
        {"name": "b\"c", "path": b, "type": "file"}
    ]);
    assert_eq!(reply.json(), expected);
    assert_eq!(fs::read_to_string(&a).unwrap(), "one\r\n--Xy");
    assert_eq!(fs::read_to_string(&b).unwrap(), "");

    // The query's path wins, and `+` in it is a space.
    let query = format!("?path={}", place.at("p+q"));
    let reply = place
        .form(&query, &[("name=\"file\"; filename=\"x\"", "data")])
        .expect(200);
    assert_eq!(reply.json()[0]["path"], json!(place.at("p q")));
    assert_eq!(place.form("", &[]).expect(200).json(), json!([]));

    let twice = format!("name=\"file\"; filename=\"{a}\"");
    let reply = place
        .form("", &[(&twice, "first"), (&twice, "second")])
        .expect(400);
    assert!(message(&reply).starts_with("you cannot upload multiple files to the same path"));
    assert_eq!(fs::read_to_string(&a).unwrap(), "first");
    let reply = place.form("", &[("name=\"file\"", "x")]).expect(400);
    assert!(message(&reply).contains("filename not found in Content-Disposition header"));
}

#[test]
fn broken_forms_and_types() {
    let place = Place::new(Server::open());
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        place.server.request("POST", "/files", headers, body)
    };
    for body in [
        &b""[..],
        b"--XyZ",
        b"--XyZ\r\nA: b",
        b"--XyZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"/nope/",
    ] {
        assert!(message(&post(&[FORM], body).expect(500)).starts_with("error reading form: "));
    }
    let long = [&b"--XyZ\r\n"[..], &[b'a'; 100_000]].concat();
    assert!(message(&post(&[FORM], &long).expect(500)).contains("header of more than"));
    let bare = post(&[("content-type", "multipart/form-data")], b"x").expect(500);
    assert!(message(&bare).starts_with("error parsing multipart form: "));
    let unknown = post(&[("content-type", "text/plain")], b"x").expect(400);
    assert_eq!(
        message(&unknown),
        "unsupported content type: text/plain, expected multipart/form-data or application/octet-stream"
    );
    post(&[], b"x").expect(400);
    let pathless = post(&[RAW], b"x").expect(400);
    assert_eq!(
        message(&pathless),
        "path query parameter is required for raw body upload"
    );
    fs::write(place.at("file"), "").unwrap();
    let dir = place.write("", &[], b"x").expect(400);
    assert_eq!(
        message(&dir),
        format!("path is a directory: {}", place.at(""))
    );
    place.write("file/below", &[], b"x").expect(500);
}

#[test]
fn parallel_uploads_into_one_new_directory() {
    let place = Place::new(Server::open());
    thread::scope(|scope| {
        for number in 0..8 {
            let place = &place;
            scope.spawn(move || {
                place
                    .write(&format!("x/y/z/{number}"), &[], b"data")
                    .expect(200);
            });
        }
    });
    assert_eq!(fs::read_dir(place.at("x/y/z")).unwrap().count(), 8);
}

#[test]
fn a_full_disk_is_told() {
    let place = Place::new(Server::open());
    // The kernel's own always-full device.
    symlink("/dev/full", place.at("full")).unwrap();
    let reply = place.write("full", &[], b"12345").expect(507);
    assert_eq!(
        message(&reply),
        "attempted to write 5 bytes: not enough disk space available"
    );
}

#[test]
fn metadata_is_kept_and_replaced() {
    let place = Place::new(Server::open());
    let metadata = |headers: &[(&str, &str)]| -> Value {
        place.write("f", headers, b"x").expect(200).json()[0]["metadata"].clone()
    };
    if metadata(&[("X-Metadata-Author", "me"), ("x-metadata-empty", "")]).is_null() {
        println!("skipped: no user attributes in {}", place.at(""));
        return;
    }
    let stat = || {
        let reply = place
            .server
            .call("Filesystem/Stat", &json!({"path": place.at("f")}));
        reply.expect(200).json()["entry"]["metadata"].clone()
    };
    assert_eq!(stat(), json!({"author": "me", "empty": ""}));
    assert_eq!(metadata(&[("x-metadata-b", "2")]), json!({"b": "2"}));
    assert_eq!(metadata(&[]), Value::Null);
    assert_eq!(stat(), Value::Null);
    let long = "v".repeat(4096);
    let reply = place
        .write("f", &[("x-metadata-k", &long)], b"x")
        .expect(400);
    assert!(message(&reply).starts_with("invalid metadata: "));
}

#[test]
fn composing() {
    let place = Place::new(Server::open());
    let compose = |sources: &[String], destination: &str| {
        let body = json!({"source_paths": sources, "destination": destination, "username": "root"});
        let headers = [("content-type", "application/json")];
        place.server.request(
            "POST",
            "/files/compose",
            &headers,
            body.to_string().as_bytes(),
        )
    };
    let sources: Vec<String> = ["b", "a"].map(|name| place.at(name)).to_vec();
    fs::write(&sources[0], "first ").unwrap();
    fs::write(&sources[1], "second").unwrap();
    let target = place.at("new/all");
    let reply = compose(&sources, &target).expect(200);
    assert_eq!(
        reply.json(),
        json!({"path": target, "name": "all", "type": "file"})
    );
    assert_eq!(fs::read_to_string(&target).unwrap(), "first second");
    assert!(sources.iter().all(|source| fs::metadata(source).is_err()));
    assert_eq!(fs::read_dir(place.at("new")).unwrap().count(), 1);

    let one = [place.at("one")];
    assert_eq!(
        message(&compose(&[], &target).expect(400)),
        "source_paths must not be empty"
    );
    assert_eq!(
        message(&compose(&one, "").expect(400)),
        "destination is required"
    );
    let same = compose(std::slice::from_ref(&target), &place.at("new/../new/all")).expect(400);
    assert!(message(&same).contains("cannot be the same as destination"));
    let missing = compose(&one, &target).expect(404);
    assert_eq!(
        message(&missing),
        format!("source file not found: {}", one[0])
    );
    let dir = compose(&[place.at("new")], &place.at("x")).expect(400);
    assert!(message(&dir).starts_with("source path is not a regular file"));
    let broken = place
        .server
        .request("POST", "/files/compose", &[], b"{")
        .expect(400);
    assert!(message(&broken).starts_with("invalid request body: "));
    assert_eq!(fs::read_to_string(&target).unwrap(), "first second");
}

fn signed(path: &str, operation: &str, expiration: Option<i64>) -> String {
    let mut raw = format!("{path}:{operation}::{TOKEN}");
    if let Some(expiration) = expiration {
        raw.push_str(&format!(":{expiration}"));
    }
    let signature = STANDARD_NO_PAD.encode(Sha256::digest(raw));
    let signature = signature.replace('+', "%2B").replace('/', "%2F");
    let mut query = format!("/files?path={path}&signature=v1_{signature}");
    if let Some(expiration) = expiration {
        query.push_str(&format!("&signature_expiration={expiration}"));
    }
    query
}

#[test]
fn signed_links() {
    let place = Place::new(Server::secured());
    let path = place.at("f");
    let post = |url: &str, headers: &[(&str, &str)]| {
        place
            .server
            .request("POST", url, &[&[RAW], headers].concat(), b"data")
    };
    let bare = format!("/files?path={path}");
    assert_eq!(
        message(&post(&bare, &[]).expect(401)),
        "missing signature query parameter"
    );
    let read_only = post(&signed(&path, "read", None), &[]).expect(401);
    assert_eq!(message(&read_only), "invalid signature");
    post(&signed(&path, "write", None), &[]).expect(200);
    post(&bare, &[("x-access-token", TOKEN)]).expect(200);
    let wrong = post(&signed(&path, "write", None), &[("x-access-token", "no")]).expect(401);
    assert_eq!(
        message(&wrong),
        "access token present in header but does not match"
    );

    let get = |url: &str| place.server.get(url);
    assert_eq!(
        get(&signed(&path, "read", Some(4_000_000_000)))
            .expect(200)
            .text(),
        "data"
    );
    let expired = get(&signed(&path, "read", Some(1_000))).expect(401);
    assert_eq!(
        expired.text(),
        "{\"code\":401,\"message\":\"signature is already expired\"}\n"
    );
    let added = format!(
        "{}&signature_expiration=4000000000",
        signed(&path, "read", None)
    );
    assert_eq!(message(&get(&added).expect(401)), "invalid signature");
    let gone = place.at("gone");
    let missing = get(&signed(&gone, "read", Some(4_000_000_000))).expect(404);
    assert_eq!(message(&missing), format!("path '{gone}' does not exist"));
    get(&format!("{bare}&signature=x&signature_expiration=soon")).expect(400);
}

#[test]
fn unsecured_files_need_nothing() {
    let place = Place::new(Server::unsecured());
    place.write("f", &[], b"x").expect(200);
    place.read("f", &[("x-access-token", "any")]).expect(200);
}

#[test]
fn an_upload_that_breaks_off_leaves_the_server_well() {
    let place = Place::new(Server::open());
    let mut connection = place.server.connect();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n\
         content-length: 1000000\r\n\r\npart",
        place.url("partial")
    );
    connection.send(head.as_bytes());
    thread::sleep(std::time::Duration::from_millis(50));
    drop(connection);
    place.write("next", &[], b"x").expect(200);
}

#[test]
fn whoever_is_refused_gets_to_read_why() {
    let place = Place::new(Server::open());
    // More than all buffers on the way hold.
    let body = vec![b'x'; 30_000_000];
    place.write("", &[], &body).expect(400);
    let headers = [("content-type", "application/json")];
    let path = "/filesystem.Filesystem/Stat";
    let reply = place
        .server
        .request("POST", path, &headers, &body)
        .expect(429);
    assert_eq!(reply.json()["code"], "resource_exhausted");
}
