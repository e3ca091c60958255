//! What holds for every kind of bucket: the same functions against each.

use casemate_artifacts::{
    ArtifactError, Artifacts, ArtifactsConfig, BucketConfig, Digest, Kind, PutRequest, SweepLimits,
    What,
};

use crate::place::{Days, azure, folder, gcs, get, noise, open, put, read, request, s3, scope};
use crate::{emulator, place};

async fn conforms(config: &BucketConfig) {
    let artifacts = open(config);
    whole(&artifacts).await;
    once(&artifacts, config).await;
    together(config).await;
    ranges(&artifacts).await;
    removed(&artifacts).await;
    listed(&artifacts).await;
    bounded(&artifacts).await;
    swept(config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&folder(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    let artifacts = Artifacts::in_memory(&ArtifactsConfig::default()).unwrap();
    whole(&artifacts).await;
    ranges(&artifacts).await;
    removed(&artifacts).await;
    listed(&artifacts).await;
    bounded(&artifacts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms() {
    let Some(address) = emulator::moto() else {
        return;
    };
    conforms(&s3(address)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcs_conforms() {
    let Some(address) = emulator::moto() else {
        return;
    };
    conforms(&gcs(address)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_conforms() {
    let Some(address) = emulator::azurite() else {
        return;
    };
    conforms(&azure(address)).await;
}

/// What is put is got, of any length, with what is said of it.
async fn whole(artifacts: &Artifacts) {
    let team = scope("whole");
    for len in [0, 1, 100 << 10, (6 << 20) + 1] {
        let content = noise(len, len as u64);
        let put = put(artifacts, &team, &content).await;
        assert_eq!(put.artifact.bytes, len as u64);
        assert_eq!(put.whole, Digest::of(&content));
        let artifact = artifacts.open_artifact(&team, &put.artifact).await.unwrap();
        assert_eq!(artifact.whole(), Digest::of(&content));
        assert_eq!((artifact.kind(), artifact.name()), (Kind::Files, "test"));
        assert!(read(&artifact).await.unwrap() == content, "{len}");
    }
    let zeros = vec![0; 20 << 20];
    let put = put(artifacts, &team, &zeros).await;
    assert!(put.bytes_sent < 64 << 10, "{put:?}");
    assert!(get(artifacts, &team, &put.artifact).await == zeros);
}

/// What is there is not sent again, by nobody; but of another team all is.
async fn once(artifacts: &Artifacts, config: &BucketConfig) {
    let (team, other) = (scope("once"), scope("once-other"));
    let mut content = noise(8 << 20, 11);
    let first = put(artifacts, &team, &content).await;
    assert_eq!(first.pieces_new, first.pieces);
    let second = put(artifacts, &team, &content).await;
    assert_eq!((second.pieces_new, second.bytes_sent), (0, 0));
    assert_ne!(second.artifact, first.artifact);
    // Another process, which remembers nothing, and content that differs little.
    content.splice(3 << 20..3 << 20, *b"inserted");
    let third = put(&open(config), &team, &content).await;
    assert!((1..=3).contains(&third.pieces_new), "{third:?}");
    let others = put(artifacts, &other, &content).await;
    assert_eq!(others.pieces_new, others.pieces);
    // Each has its own manifest: removing one leaves the others.
    artifacts.remove(&team, &first.artifact).await.unwrap();
    assert!(get(artifacts, &team, &third.artifact).await == content);
    // A reference opens nothing of another team's.
    let stolen = artifacts.open_artifact(&other, &third.artifact).await;
    assert!(
        matches!(stolen, Err(ArtifactError::NotFound { .. })),
        "{stolen:?}"
    );
}

/// Several put the same at once, two of them in one process.
async fn together(config: &BucketConfig) {
    let team = scope("together");
    let content = [noise(3 << 20, 41), vec![0; 9 << 20]].concat();
    let (one, other) = (open(config), open(config));
    let (a, b, c) = tokio::join!(
        put(&one, &team, &content),
        put(&one, &team, &content),
        put(&other, &team, &content),
    );
    for put in [a, b, c] {
        assert!(get(&other, &team, &put.artifact).await == content);
    }
}

async fn ranges(artifacts: &Artifacts) {
    let team = scope("ranges");
    let content = noise(5 << 20, 21);
    let put = put(artifacts, &team, &content).await;
    let artifact = artifacts.open_artifact(&team, &put.artifact).await.unwrap();
    let mut lots = noise(16 * 20, 3).into_iter();
    let mut number = |below: usize| {
        let bytes: Vec<u8> = lots.by_ref().take(8).collect();
        u64::from_le_bytes(bytes.try_into().unwrap()) as usize % below
    };
    for _ in 0..20 {
        let offset = number(content.len());
        let len = number(content.len() - offset + 1);
        let read = artifact.read_at(offset as u64, len).await.unwrap();
        assert!(read == content[offset..offset + len], "{offset} {len}");
    }
    for (offset, len) in [
        (0, 0),
        (content.len(), 0),
        (0, content.len()),
        (content.len() - 1, 1),
    ] {
        let read = artifact.read_at(offset as u64, len).await.unwrap();
        assert!(read == content[offset..offset + len]);
        let mut reader = artifact.reader_at(offset as u64, len as u64).unwrap();
        let mut streamed = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut streamed)
            .await
            .unwrap();
        assert!(streamed == content[offset..offset + len]);
    }
    for (offset, len) in [(content.len() as u64, 1), (u64::MAX, 1), (1, content.len())] {
        let beyond = artifact.read_at(offset, len).await;
        assert!(
            matches!(beyond, Err(ArtifactError::Range { .. })),
            "{beyond:?}"
        );
    }
}

async fn removed(artifacts: &Artifacts) {
    let team = scope("removed");
    let put = put(artifacts, &team, b"content").await;
    for _ in 0..2 {
        artifacts.remove(&team, &put.artifact).await.unwrap();
        let gone = artifacts
            .open_artifact(&team, &put.artifact)
            .await
            .unwrap_err();
        let what = What::Manifest(put.artifact.manifest);
        assert!(
            matches!(&gone, ArtifactError::NotFound { what: of } if *of == what),
            "{gone:?}"
        );
        assert!(!gone.is_retryable());
    }
}

async fn listed(artifacts: &Artifacts) {
    let team = scope("listed");
    assert_eq!(artifacts.manifests(&team).await.unwrap(), []);
    let mut expected = Vec::new();
    for content in [b"one", b"two"] {
        expected.push(put(artifacts, &team, content).await.artifact.manifest);
    }
    let entries = artifacts.manifests(&team).await.unwrap();
    assert!(entries.iter().all(|entry| entry.age.as_secs() < 60));
    let mut found: Vec<_> = entries.iter().map(|entry| entry.manifest).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert!(artifacts.scopes().await.unwrap().contains(&team));
}

async fn bounded(artifacts: &Artifacts) {
    let team = scope("bounded");
    let content = noise(3 << 20, 5);
    let bytes_max = content.len() as u64 - 1;
    let request = |bytes_max| PutRequest {
        bytes_max,
        ..request(&team, "x")
    };
    let put = artifacts.put(request(bytes_max), &content[..]).await;
    assert!(matches!(put, Err(ArtifactError::TooLarge { bytes_max: of }) if of == bytes_max));
    assert_eq!(artifacts.manifests(&team).await.unwrap(), []);
    artifacts
        .put(request(bytes_max + 1), &content[..])
        .await
        .unwrap();
}

/// Only what is old and named by nothing goes; what is put again meanwhile stays.
async fn swept(config: &BucketConfig) {
    let team = scope("swept");
    let days = Days::now();
    let artifacts = days.open(config);
    let (shared, lone) = (noise(2 << 20, 31), noise(2 << 20, 32));
    let kept = put(&artifacts, &team, &shared).await;
    let gone = put(&artifacts, &team, &[&shared[..], &lone[..]].concat()).await;
    artifacts.remove(&team, &gone.artifact).await.unwrap();
    let young = artifacts
        .sweep(&team, SweepLimits::default())
        .await
        .unwrap();
    assert_eq!((young.deleted, young.done), (0, true));

    days.pass(8);
    // Looked for anew: under their old names they might go at any time.
    let again = put(&artifacts, &team, &lone).await;
    assert_eq!(again.pieces_new, again.pieces);
    let swept = artifacts
        .sweep(&team, SweepLimits::default())
        .await
        .unwrap();
    assert_eq!((swept.deleted, swept.done), (gone.pieces_new as u64, true));
    assert!(swept.deleted_bytes > 0);
    let fresh = place::open(config);
    assert!(get(&fresh, &team, &kept.artifact).await == shared);
    assert!(get(&fresh, &team, &again.artifact).await == lone);
    let after = artifacts
        .sweep(&team, SweepLimits::default())
        .await
        .unwrap();
    assert_eq!(
        (after.deleted, after.kept, after.done),
        (0, kept.pieces as u64, true)
    );
}
