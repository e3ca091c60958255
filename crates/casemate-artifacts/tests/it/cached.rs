//! The local cache, as readers see it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_artifacts::{Artifacts, ArtifactsConfig, CacheConfig, OpenError};

use crate::emulator;
use crate::place::{folder, get, noise, open_cached, put, s3, scope};
use crate::proxy::{Fault, Proxy};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_is_read_without_the_bucket() {
    let (bucket, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let team = scope("team");
    let content = noise(6 << 20, 1);
    let config = folder(bucket.path());
    let artifacts = open_cached(&config, cache.path(), 64 << 20);
    let put = put(&artifacts, &team, &content).await;
    assert!(get(&artifacts, &team, &put.artifact).await == content);
    assert_eq!(artifacts.cached().1, put.pieces);
    drop(artifacts);
    // Also by the next process, and when the pieces are gone.
    fs::remove_dir_all(bucket.path().join("scopes/team/pieces")).unwrap();
    let artifacts = open_cached(&config, cache.path(), 64 << 20);
    assert!(get(&artifacts, &team, &put.artifact).await == content);
    let taken = CacheConfig {
        folder: cache.path().to_owned(),
        bytes_max: 1,
    };
    let second = ArtifactsConfig {
        cache: Some(taken),
        ..ArtifactsConfig::default()
    };
    assert!(matches!(
        Artifacts::open(&config, &second),
        Err(OpenError::Cache(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_piece_that_was_changed_on_the_disk_is_fetched_again() {
    let (bucket, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let team = scope("team");
    let content = noise(4 << 20, 2);
    let artifacts = open_cached(&folder(bucket.path()), cache.path(), 64 << 20);
    let put = put(&artifacts, &team, &content).await;
    get(&artifacts, &team, &put.artifact).await;
    let pieces = files(&cache.path().join("pieces"));
    assert_eq!(pieces.len(), put.pieces);
    for (number, path) in pieces.iter().enumerate() {
        let mut bytes = fs::read(path).unwrap();
        match number % 3 {
            0 => bytes[100] ^= 1,
            1 => bytes.truncate(50),
            _ => bytes.extend_from_slice(&[0; 9]),
        }
        fs::write(path, bytes).unwrap();
    }
    assert!(get(&artifacts, &team, &put.artifact).await == content);
    // And what is there now is right.
    fs::remove_dir_all(bucket.path().join("scopes/team/pieces")).unwrap();
    assert!(get(&artifacts, &team, &put.artifact).await == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_holds_while_many_read() {
    let (bucket, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes_max = 5 << 20;
    let artifacts = open_cached(&folder(bucket.path()), cache.path(), bytes_max);
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..6 {
        let artifacts = artifacts.clone();
        readers.spawn(async move {
            let team = scope("team");
            let content = noise(4 << 20, number % 3);
            let put = put(&artifacts, &team, &content).await;
            for _ in 0..3 {
                assert!(get(&artifacts, &team, &put.artifact).await == content);
            }
        });
    }
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    let on_disk: u64 = files(cache.path())
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(on_disk <= bytes_max && on_disk > 0, "{on_disk}");
    assert_eq!(artifacts.cached().0, on_disk);
}

/// Eight who want one piece fetch it once; who gives up takes it from nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_share_what_is_on_its_way() {
    let Some(moto) = emulator::moto() else { return };
    let proxy = Proxy::before(moto);
    let cache = tempfile::tempdir().unwrap();
    let artifacts = open_cached(&s3(proxy.address), cache.path(), 64 << 20);
    let team = scope("team");
    let put = put(&artifacts, &team, b"a small piece").await;
    let artifact = artifacts.open_artifact(&team, &put.artifact).await.unwrap();
    proxy.fail("GET", "pieces", 9, Fault::Late(Duration::from_millis(500)));
    proxy.count("", "");
    let impatient = artifact.clone();
    let given_up = tokio::spawn(async move { impatient.read_at(0, 7).await });
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let artifact = artifact.clone();
        readers.spawn(async move { artifact.read_at(2, 5).await.unwrap() });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    given_up.abort();
    while let Some(read) = readers.join_next().await {
        assert_eq!(read.unwrap(), &b"small"[..]);
    }
    assert_eq!(proxy.count("GET", "pieces"), 1);
}

/// A disk without room: the cache stays empty, and readers do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_the_cache_only() {
    let (bucket, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let team = scope("team");
    let content = noise(2 << 20, 3);
    let artifacts = open_cached(&folder(bucket.path()), cache.path(), 64 << 20);
    // No file can be made where there is no folder: as when there is no room.
    fs::remove_dir(cache.path().join("partial")).unwrap();
    let put = put(&artifacts, &team, &content).await;
    assert!(get(&artifacts, &team, &put.artifact).await == content);
    assert_eq!(artifacts.cached(), (0, 0));
}
