//! File systems without room, made for the test: root only (`CASEMATE_TEST_ROOT=1`).

use std::path::{Path, PathBuf};
use std::process::Command;

use casemate_artifacts::ArtifactError;

use crate::place::{folder, get, noise, open, open_cached, put, request, scope};

/// Two mebibytes, until dropped.
struct Small(PathBuf);

impl Small {
    fn at(path: PathBuf) -> Option<Self> {
        if std::env::var_os("CASEMATE_TEST_ROOT").is_none_or(|value| value != "1") {
            println!("skipped: CASEMATE_TEST_ROOT is not 1");
            return None;
        }
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "casemate-test"])
            .arg(&path)
            .status();
        assert!(mounted.unwrap().success());
        Some(Self(path))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn below(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_without_room_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Small::at(below(dir.path(), "bucket")) else {
        return;
    };
    let artifacts = open(&folder(&small.0));
    let team = scope("team");
    let kept = put(&artifacts, &team, &noise(200 << 10, 1)).await;
    let error = artifacts
        .put(request(&team, "x"), &noise(8 << 20, 2)[..])
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::Full { .. }), "{error:?}");
    assert!(get(&artifacts, &team, &kept.artifact).await == noise(200 << 10, 1));
    assert_eq!(artifacts.manifests(&team).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_without_room_keeps_what_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Small::at(below(dir.path(), "cache")) else {
        return;
    };
    let artifacts = open_cached(&folder(&below(dir.path(), "bucket")), &small.0, 1 << 30);
    let team = scope("team");
    let content = noise(8 << 20, 3);
    let put = put(&artifacts, &team, &content).await;
    for _ in 0..2 {
        assert!(get(&artifacts, &team, &put.artifact).await == content);
    }
    assert!(artifacts.cached().0 <= 2 << 20);
}
