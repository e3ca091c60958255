//! Sweeps beside puts, over days; and ones that must not go by what they see.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use casemate_artifacts::{ArtifactError, SweepLimits, Swept};

use crate::place::{Days, folder, get, noise, put, scope};

/// A corrupt or strange manifest could name anything: nothing goes then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_by_a_manifest_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let (team, days) = (scope("team"), Days::now());
    let artifacts = days.open(&folder(dir.path()));
    let kept = put(&artifacts, &team, &noise(1 << 20, 1)).await;
    let gone = put(&artifacts, &team, &noise(1 << 20, 2)).await;
    artifacts.remove(&team, &gone.artifact).await.unwrap();
    days.pass(9);
    let hex = kept.artifact.manifest.to_string();
    let path = dir
        .path()
        .join(format!("scopes/team/manifests/{}/{hex}", &hex[..2]));
    let manifest = fs::read(&path).unwrap();
    for torn in [&manifest[..manifest.len() - 44], b""] {
        fs::write(&path, torn).unwrap();
        let swept = artifacts.sweep(&team, SweepLimits::default()).await;
        assert!(
            matches!(swept, Err(ArtifactError::Corrupt { .. })),
            "{swept:?}"
        );
    }
    fs::write(&path, manifest).unwrap();
    let swept = artifacts
        .sweep(&team, SweepLimits::default())
        .await
        .unwrap();
    assert_eq!(swept.deleted, gone.pieces as u64);
    assert_eq!(
        get(&artifacts, &team, &kept.artifact).await,
        noise(1 << 20, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_ended_early_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (team, days) = (scope("team"), Days::now());
    let artifacts = days.open(&folder(dir.path()));
    let mut pieces = 0;
    for seed in 0..520u64 {
        let put = put(&artifacts, &team, &seed.to_le_bytes()).await;
        artifacts.remove(&team, &put.artifact).await.unwrap();
        pieces += put.pieces_new as u64;
    }
    days.pass(9);
    let first = artifacts
        .sweep(&team, SweepLimits { deleted_max: 1 })
        .await
        .unwrap();
    assert!(!first.done && first.deleted < pieces, "{first:?}");
    let second = artifacts
        .sweep(&team, SweepLimits::default())
        .await
        .unwrap();
    assert_eq!(
        (first.deleted + second.deleted, second.done),
        (pieces, true)
    );
    let nothing = artifacts
        .sweep(&team, SweepLimits::default())
        .await
        .unwrap();
    assert_eq!(
        nothing,
        Swept {
            done: true,
            ..Swept::default()
        }
    );
}

/// Ten weeks in which content comes, goes and comes again, with a sweep always under way: what was
/// put and not removed is there, whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_and_sweeps_go_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let config = folder(dir.path());
    let (team, days) = (scope("team"), Days::now());
    let over = Arc::new(AtomicBool::new(false));
    let sweeper = {
        let (artifacts, team, over) = (days.open(&config), team.clone(), Arc::clone(&over));
        tokio::spawn(async move {
            let mut deleted = 0;
            while !over.load(Ordering::Relaxed) {
                deleted += artifacts
                    .sweep(&team, SweepLimits::default())
                    .await
                    .unwrap()
                    .deleted;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            deleted
        })
    };
    // Two writers, of which neither knows what the other found.
    let writers = [days.open(&config), days.open(&config)];
    let mut kept = std::collections::VecDeque::new();
    for round in 0..70u64 {
        let content = noise(600 << 10, round % 7);
        let writer = &writers[(round % 2) as usize];
        match writer
            .put(crate::place::request(&team, "x"), &content[..])
            .await
        {
            Ok(put) => kept.push_back((put.artifact, content)),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        if kept.len() > 3 {
            let (artifact, content) = kept.pop_front().unwrap();
            assert!(get(&days.open(&config), &team, &artifact).await == content);
            writer.remove(&team, &artifact).await.unwrap();
        }
        days.pass(1);
    }
    over.store(true, Ordering::Relaxed);
    assert!(sweeper.await.unwrap() > 0);
    for (artifact, content) in kept {
        assert!(get(&days.open(&config), &team, &artifact).await == content);
    }
}

/// A put that goes on for days names nothing that may be gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_outlives_its_pieces_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (team, days) = (scope("team"), Days::now());
    let artifacts = days.open(&folder(dir.path()));
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let feeding = {
        let days = days.clone();
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            writer.write_all(&noise(9 << 20, 1)).await.unwrap();
            days.pass(5);
            writer.write_all(&noise(1 << 20, 2)).await.unwrap();
        })
    };
    let put = artifacts
        .put(crate::place::request(&team, "x"), reader)
        .await;
    feeding.await.unwrap();
    assert!(matches!(&put, Err(ArtifactError::Outlived)), "{put:?}");
    assert!(put.unwrap_err().is_retryable());
    assert_eq!(artifacts.manifests(&team).await.unwrap(), []);
}
