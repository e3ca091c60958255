//! A process that is killed while it puts.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_artifacts::SweepLimits;

use crate::place::{Days, folder, get, noise, open, put, request, scope};

const FOLDER: &str = "CASEMATE_TEST_KILLED_FOLDER";

/// Not a test of its own: the process that is killed. It puts for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn putting() {
    let Ok(path) = std::env::var(FOLDER) else {
        return;
    };
    let artifacts = open(&folder(Path::new(&path)));
    let team = scope("team");
    for seed in 0.. {
        let content = noise(64 << 20, seed);
        artifacts
            .put(request(&team, "killed"), &content[..])
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_minus_nine_leaves_nothing_that_can_be_opened_half() {
    let team = scope("team");
    for millis in [0, 30, 90] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["killed::putting", "--exact"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pieces = dir.path().join("scopes/team/pieces");
        let until = Instant::now() + Duration::from_secs(30);
        while !pieces.exists() {
            assert!(Instant::now() < until, "nothing was put");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();

        let days = Days::now();
        let artifacts = days.open(&folder(dir.path()));
        let left = artifacts.manifests(&team).await.unwrap();
        // It puts 64 MiB each time: what is there is whole.
        for entry in &left {
            let artifact = casemate_artifacts::ArtifactRef {
                manifest: entry.manifest,
                bytes: 64 << 20,
            };
            get(&artifacts, &team, &artifact).await;
            artifacts.remove(&team, &artifact).await.unwrap();
        }
        let kept = put(&artifacts, &team, &noise(3 << 20, 0)).await;
        days.pass(9);
        // What was being written is as old as the file says.
        for path in files(dir.path()) {
            let old = std::time::SystemTime::now() - Duration::from_secs(9 * 24 * 3600);
            std::fs::File::open(&path)
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
        artifacts
            .sweep(&team, SweepLimits::default())
            .await
            .unwrap();
        assert!(get(&artifacts, &team, &kept.artifact).await == noise(3 << 20, 0));
        // The layout, one manifest and its pieces: nothing else.
        assert_eq!(files(dir.path()).len(), 2 + kept.pieces);
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}
