//! A real registry: Debian's `docker-registry`, as it comes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use casemate_images::{Credentials, Digest, ImageError, Images};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::files::{
    DOCKER_MANIFEST, Files, OCI_INDEX, config, gzip, image, image_with, noise, read, tar_of,
    unpacked, zstd,
};

const ANYONE: Credentials = Credentials::Anonymous;
/// `user` with the password `secret`, by bcrypt.
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
const LOGIN: &str = "authorization: Basic dXNlcjpzZWNyZXQ=\r\n";

struct Registry {
    host: String,
    login: &'static str,
    child: Child,
    _dir: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether tests with it are wanted; if so, its absence is a failure.
fn wanted() -> bool {
    let wanted = std::env::var_os("CASEMATE_TEST_REGISTRY").is_some();
    if !wanted {
        eprintln!("skipped: set CASEMATE_TEST_REGISTRY=1 where docker-registry is installed");
    }
    wanted
}

fn write_config(dir: &Path, host: &str, auth: bool) {
    let storage = dir.join("storage");
    let mut text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  \
         addr: {host}\n  secret: none\n",
        storage.display()
    );
    if auth {
        let users = dir.join("htpasswd");
        fs::write(&users, HTPASSWD).unwrap();
        text += &format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            users.display()
        );
    }
    fs::write(dir.join("config.yml"), text).unwrap();
}

/// A registry cannot be told to choose a port: each has an address of its own, which no other program
/// happens to take one of.
fn own_address() -> String {
    static COUNT: AtomicU16 = AtomicU16::new(5000);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = COUNT.fetch_add(1, Ordering::SeqCst);
    format!("127.{}.{middle}.{low}:{port}", 64 + high)
}

impl Registry {
    async fn start(auth: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = own_address();
        write_config(dir.path(), &host, auth);
        let mut child = Command::new("docker-registry")
            .args(["serve".as_ref(), dir.path().join("config.yml").as_os_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let ready = async {
            while TcpStream::connect(&host).await.is_err() {
                assert_eq!(child.try_wait().unwrap(), None, "it runs");
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), ready)
            .await
            .expect("it listens");
        Self {
            host,
            login: if auth { LOGIN } else { "" },
            child,
            _dir: dir,
        }
    }

    /// One request of the API of registries; the status and the head.
    async fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.host).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
             {}content-length: {}\r\n\r\n",
            self.host,
            self.login,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    async fn push_manifest(&self, repository: &str, tag: &str, kind: &str, manifest: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, answer) = self.ask("PUT", &path, kind, manifest).await;
        assert_eq!(status, 201, "{answer}");
    }

    async fn push(&self, repository: &str, tag: &str, files: &Files) {
        for (digest, blob) in &files.blobs {
            let path = format!("/v2/{repository}/blobs/uploads/");
            let (status, answer) = self.ask("POST", &path, "", b"").await;
            assert_eq!(status, 202, "{answer}");
            let mut lines = answer.lines().filter_map(|line| line.split_once(": "));
            let location = lines.find(|(name, _)| name.eq_ignore_ascii_case("location"));
            let path = location
                .unwrap()
                .1
                .trim_start_matches(&format!("http://{}", self.host));
            let path = format!("{path}&digest={digest}");
            let (status, answer) = self
                .ask("PUT", &path, "application/octet-stream", blob)
                .await;
            assert_eq!(status, 201, "{answer}");
        }
        self.push_manifest(repository, tag, files.manifest_kind, &files.manifest)
            .await;
    }
}

#[tokio::test]
async fn images_of_both_kinds_are_had() {
    if !wanted() {
        return;
    }
    let registry = Registry::start(false).await;
    let tars = ["a", "b", "c"].map(|name| tar_of(name, &noise(2_000_000)));
    let docker = image(&[gzip(&tars[0])]);
    let oci = image(&[gzip(&tars[0]), zstd(&tars[1]), unpacked(&tars[2])]);
    assert_eq!(docker.manifest_kind, DOCKER_MANIFEST);
    registry.push("some/docker", "1", &docker).await;
    registry.push("oci", "latest", &oci).await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&registry.host])).unwrap();
    for (reference, layers) in [
        (format!("{}/some/docker:1", registry.host), 1),
        (format!("{}/oci", registry.host), 3),
        (
            format!("{}/oci@{}", registry.host, Digest::of(&oci.manifest)),
            3,
        ),
    ] {
        let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
        assert_eq!(image.layers.len(), layers);
        for (n, tar) in tars.iter().enumerate().take(layers) {
            assert!(&read(&images, &image, n).await.unwrap() == tar);
        }
    }
    for (name, text) in [
        (
            "oci:none",
            "image '<r>' not found: the image or tag does not exist in the registry",
        ),
        (
            "none:1",
            // It does not tell a repository from a tag.
            "image '<r>' not found: the image or tag does not exist in the registry",
        ),
    ] {
        let reference = format!("{}/{name}", registry.host);
        let error = images.resolve(&reference, &ANYONE, "").await.unwrap_err();
        assert_eq!(error.to_string(), text.replace("<r>", &reference));
    }
}

#[tokio::test]
async fn the_image_for_the_platform_is_chosen() {
    if !wanted() {
        return;
    }
    let registry = Registry::start(false).await;
    let ours = image(&[zstd(&tar_of("ours", b"x"))]);
    let theirs = image_with(&[zstd(&tar_of("theirs", b"x"))], |config| {
        config["architecture"] = json!("arm64");
    });
    registry.push("many", "ours", &ours).await;
    registry.push("many", "theirs", &theirs).await;
    let entry = |files: &Files, architecture: &str| {
        json!({"mediaType": files.manifest_kind, "digest": Digest::of(&files.manifest).to_string(),
            "size": files.manifest.len(), "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [entry(&theirs, "arm64"), entry(&ours, "amd64")]});
    registry
        .push_manifest("many", "latest", OCI_INDEX, index.to_string().as_bytes())
        .await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&registry.host])).unwrap();
    let image = images
        .resolve(&format!("{}/many", registry.host), &ANYONE, "")
        .await
        .unwrap();
    assert_eq!(image.digest, Digest::of(&ours.manifest));
    assert_eq!(
        read(&images, &image, 0).await.unwrap(),
        tar_of("ours", b"x")
    );
}

#[tokio::test]
async fn a_registry_with_passwords_asks_for_them() {
    if !wanted() {
        return;
    }
    let registry = Registry::start(true).await;
    registry
        .push("private/x", "1", &image(&[gzip(&tar_of("x", b"x"))]))
        .await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&registry.host])).unwrap();
    let reference = format!("{}/private/x:1", registry.host);
    let login = |password: &str| Credentials::Basic {
        username: "user".into(),
        password: password.into(),
    };
    let image = images
        .resolve(&reference, &login("secret"), "team")
        .await
        .unwrap();
    assert_eq!(read(&images, &image, 0).await.unwrap(), tar_of("x", b"x"));
    for wrong in [login("wrong"), ANYONE] {
        let error = images
            .resolve(&reference, &wrong, "team")
            .await
            .unwrap_err();
        assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    }
}
