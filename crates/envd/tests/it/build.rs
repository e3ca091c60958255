//! What templates are built with: a sandbox of its own in each test, as layers go onto its root.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::http::Reply;
use crate::init::Sandbox;
use crate::server::{TOKEN, eventually};

/// A small root in memory with programs of the machine in it, on mounts.
const AROUND: &str = r#"
    set -e
    mount -t tmpfs -o size=6m none /mnt
    cd /mnt
    mkdir usr etc proc dev tmp run root
    for dir in bin sbin lib lib64; do
        if [ -L /$dir ]; then cp -a /$dir $dir; elif [ -d /$dir ]; then mkdir $dir; mount --bind /$dir $dir; fi
    done
    mount --bind /usr usr
    mount -t proc none proc
    mount -t tmpfs none dev
    mknod -m 666 dev/null c 1 3
    echo root:x:0:0::/root:/bin/sh > etc/passwd
    printf 'root:x:0:\nstaff:x:50:\n' > etc/group
    echo > etc/hosts
    touch envd
    mount --bind "$0" envd
    exec chroot . /envd init
"#;

const AUTHORISED: (&str, &str) = ("x-access-token", TOKEN);

fn sandbox() -> Sandbox {
    Sandbox::ready(AROUND, json!({"default_workdir": "/"}))
}

fn post(sandbox: &Sandbox, path: &str, body: &[u8]) -> Reply {
    sandbox.server.request("POST", path, &[AUTHORISED], body)
}

#[track_caller]
fn message(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status, "{}", reply.text());
    let error: Value = reply.json();
    assert_eq!(error["code"], status);
    error["message"].as_str().unwrap().to_owned()
}

/// A header of a tar archive, by hand: another's reader must understand it, too.
fn entry(name: &str, kind: u8, mode: u32, link: &str, content: &[u8]) -> Vec<u8> {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000\x000000000\0");
    put(124, format!("{:011o}", content.len()).as_bytes());
    put(136, b"00000000001");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let padding = vec![0; content.len().wrapping_neg() % 512];
    [&block[..], content, &padding].concat()
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_layer_goes_onto_the_root_and_never_onto_a_mount() {
    let sandbox = sandbox();
    let layer = archive(&[
        entry("opt/tool", b'0', 0o4755, "", b"tool"),
        entry("opt/again", b'1', 0o755, "opt/tool", b""),
        entry("etc/.wh.hosts", b'0', 0o644, "", b""),
        entry("usr/bin/mine", b'0', 0o755, "", b"x"),
        entry("proc/version", b'0', 0o755, "", b"x"),
        entry("dev/", b'5', 0o700, "", b""),
        entry("dev/zero", b'3', 0o666, "", b""),
        entry(".wh.proc", b'0', 0o644, "", b""),
        entry("way", b'2', 0o777, "/opt", b""),
        entry("way/in", b'0', 0o600, "", b"in"),
    ]);
    let reply = post(&sandbox, "/build/layer", &layer).expect(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(
        reply.json(),
        json!({"entries": 10, "bytes": 6, "skipped": 5})
    );
    let script = "stat -c '%n %a %h' /opt/*; cat /way/in; ls /etc/hosts /usr/bin/mine 2>&1 | wc -l; \
                  stat -c %a /dev";
    assert_eq!(
        sandbox.run(script).out(),
        "/opt/again 4755 2\n/opt/in 600 1\n/opt/tool 4755 2\nin2\n1777\n"
    );
    let refused = post(
        &sandbox,
        "/build/layer",
        &entry("../x", b'0', 0o644, "", b""),
    );
    assert_eq!(
        message(&refused, 400),
        "'../x': a name must not contain '..'"
    );
    let reply = sandbox.server.request("POST", "/build/layer", &[], &layer);
    reply.expect(401);
    sandbox
        .server
        .request("GET", "/build/copy", &[AUTHORISED], b"")
        .expect(405);
}

#[test]
fn all_files_leave_as_a_layer_but_no_mount_and_nothing_of_the_machine() {
    let sandbox = sandbox();
    let layer = archive(&[
        entry("opt/tool", b'0', 0o4755, "", b"tool"),
        entry("opt/again", b'1', 0o755, "opt/tool", b""),
        entry("tmp/x", b'0', 0o644, "", b"x"),
        entry("run/x", b'0', 0o644, "", b"x"),
    ]);
    post(&sandbox, "/build/layer", &layer).expect(200);
    let get = |headers: &[(&str, &str)]| {
        let server = &sandbox.server;
        server.request("GET", "/build/root", headers, b"")
    };
    let reply = get(&[AUTHORISED]).expect(200);
    assert_eq!(reply.header("content-type"), Some("application/x-tar"));
    let packed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(packed.path(), &reply.body).unwrap();
    let listed = std::process::Command::new("tar")
        .args(["-tf"])
        .arg(packed.path())
        .output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let names: Vec<_> = listed.lines().collect();
    // Folders of other mounts stay to be mounted on; the agent's own file is one, and is not there.
    for folder in [
        "./",
        "dev/",
        "proc/",
        "run/",
        "tmp/",
        "usr/",
        "etc/hosts",
        "opt/tool",
        "opt/again",
    ] {
        assert!(names.contains(&folder), "{folder} in {listed}");
    }
    for gone in ["envd", "tmp/x", "run/x", "dev/null", "proc/1/", "usr/bin/"] {
        assert!(!names.contains(&gone), "{gone} in {listed}");
    }
    get(&[]).expect(401);
    post(&sandbox, "/build/root", b"").expect(405);
}

#[test]
fn copying_with_accounts_of_the_sandbox() {
    let sandbox = sandbox();
    let files = archive(&[
        entry("dir/", b'5', 0o755, "", b""),
        entry("dir/a b", b'0', 0o644, "", b"content"),
    ]);
    let query =
        "/build/copy?source=dir/*&target=app/&owner=root&group=staff&mode=0750&workdir=/srv";
    for body in [files.clone(), gzip(&files)] {
        let reply = post(&sandbox, query, &body).expect(200).json();
        assert_eq!(reply, json!({"entries": 2, "bytes": 7, "skipped": 0}));
    }
    let script = "stat -c '%n %a %U:%g' /srv/app /srv/app/*; cat /srv/app/*; ls -A /srv /";
    let out = sandbox.run(script);
    let out = out.out();
    assert!(
        out.starts_with("/srv/app 755 root:50\n/srv/app/a b 750 root:50\ncontent"),
        "{out}"
    );
    assert!(!out.contains("casemate"), "{out}");
    for (query, words) in [
        (
            "source=dir&target=/x&owner=user",
            "user 'user' does not exist",
        ),
        (
            "source=dir&target=/x&owner=root&group=user",
            "group 'user' does not exist",
        ),
        (
            "source=gone&target=/x&owner=root",
            "source path does not exist: gone",
        ),
        ("target=/x&owner=root", "source is required"),
    ] {
        let refused = post(&sandbox, &format!("/build/copy?{query}"), &files);
        assert_eq!(message(&refused, 400), words);
    }
}

#[test]
fn a_full_disk_is_told_and_cleared_up() {
    let sandbox = sandbox();
    let free = || sandbox.run("stat -f -c %f /").out().to_owned();
    let before = free();
    let zeros = vec![0; 20 << 20];
    let large = archive(&[entry("large", b'0', 0o644, "", &zeros)]);
    let bomb = post(
        &sandbox,
        "/build/copy?source=.&target=/x&owner=root",
        &gzip(&large),
    );
    assert_eq!(message(&bomb, 507), "'large': no space left on device");
    assert_eq!(free(), before);
    let layer = post(&sandbox, "/build/layer", &large);
    assert_eq!(message(&layer, 507), "'large': no space left on device");
}

#[test]
fn a_body_that_breaks_off_stops_the_work() {
    let sandbox = sandbox();
    let half = entry("large", b'0', 0o644, "", &[7; 1 << 20]);
    let truncated = post(
        &sandbox,
        "/build/copy?source=.&target=/srv/x&owner=root",
        &half[..half.len() / 2],
    );
    assert_eq!(message(&truncated, 400), "the archive ends within an entry");
    // The connection itself: nothing may stay, and the next request has its turn.
    let mut connection = sandbox.server.connect();
    let head = format!(
        "POST /build/copy?source=.&target=/srv/x&owner=root HTTP/1.1\r\nhost: x\r\n\
         x-access-token: {TOKEN}\r\ncontent-length: 5000000\r\n\r\n"
    );
    connection.send(head.as_bytes());
    connection.send(&half);
    let left = || {
        sandbox
            .run("ls -Ad /.casemate* /srv/.casemate* /srv")
            .out()
            .to_owned()
    };
    eventually("it is being unpacked", || {
        (!left().is_empty()).then_some(())
    });
    drop(connection);
    eventually("all is cleared up", || left().is_empty().then_some(()));
    let begun = Instant::now();
    let files = archive(&[entry("f", b'0', 0o644, "", b"x")]);
    post(
        &sandbox,
        "/build/copy?source=f&target=/srv/x&owner=root",
        &files,
    )
    .expect(200);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn chunked_layers_of_any_size() {
    let sandbox = sandbox();
    let layer = archive(&[entry("data", b'0', 0o644, "", &[7; 3 << 20])]);
    let mut connection = sandbox.server.connect();
    let head = format!(
        "POST /build/layer HTTP/1.1\r\nhost: x\r\nx-access-token: {TOKEN}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    connection.send(head.as_bytes());
    for piece in layer.chunks(100_000) {
        connection.send(format!("{:x}\r\n", piece.len()).as_bytes());
        connection.send(&[piece, b"\r\n"].concat());
    }
    connection.send(b"0\r\n\r\n");
    let reply = connection.reply().expect(200).json();
    assert_eq!(reply["bytes"], 3 << 20);
    assert_eq!(
        sandbox.run("stat -c %s /data").out(),
        format!("{}\n", 3 << 20)
    );
}
