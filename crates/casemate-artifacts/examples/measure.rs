//! Prints, in one run:
//!
//! * what an older and a newer file of the same kind share, cut by content and cut at fixed lengths;
//! * how fast a file is put and got, with a folder and with moto (`CASEMATE_TEST_MOTO`), beside
//!   copying it and beside its digest.
//!
//! ```text
//! cargo run --release -p casemate-artifacts --example measure -- FILE [NEWER_FILE]
//! ```

#[path = "../tests/it/emulator.rs"]
#[allow(dead_code, reason = "what only the tests use")]
mod emulator;

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use casemate_artifacts::{
    Artifacts, ArtifactsConfig, BucketConfig, BucketCredentials, CacheConfig, Digest, Kind,
    PutRequest, Scope, Secret,
};

#[tokio::main]
async fn main() {
    let mut files = std::env::args_os().skip(1);
    let Some(file) = files.next() else {
        eprintln!("usage: measure FILE [NEWER_FILE]");
        std::process::exit(2);
    };
    let content = std::fs::read(&file).expect("the file is read");
    println!("{} MiB", content.len() >> 20);
    let dir = tempfile::tempdir().expect("a folder for the measurement");
    if let Some(newer) = files.next() {
        let newer = std::fs::read(newer).expect("the newer file is read");
        sharing(&content, &newer).await;
    }
    plain(&content, dir.path());
    let folder = format!("file://{}", dir.path().join("bucket").display());
    let folder = BucketConfig::new(
        folder.parse().expect("a path"),
        BucketCredentials::Anonymous,
    );
    rates("folder", &folder, &content, &dir.path().join("cache-1")).await;
    if let Some(address) = emulator::moto() {
        let credentials = BucketCredentials::S3 {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: Secret::new("x"),
            session_token: None,
        };
        let place = format!("s3://{}", emulator::BUCKET)
            .parse()
            .expect("a bucket's name");
        let config = BucketConfig::new(place, credentials);
        let endpoint = Some(format!("http://{address}"));
        let moto = BucketConfig {
            endpoint,
            plain_http: true,
            ..config
        };
        rates("moto", &moto, &content, &dir.path().join("cache-2")).await;
    }
}

fn rate(what: &str, bytes: usize, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{what:28} {:7.0} MiB/s",
        bytes as f64 / seconds / f64::from(1 << 20)
    );
}

fn plain(content: &[u8], dir: &Path) {
    let begun = Instant::now();
    let mut file = std::fs::File::create(dir.join("copy")).expect("a file");
    file.write_all(content).expect("room on the disk");
    file.sync_all().expect("a disk");
    rate("plain copy, synced", content.len(), begun);
    let begun = Instant::now();
    Digest::of(content);
    rate("SHA-256 on one core", content.len(), begun);
    let begun = Instant::now();
    let mut packed = 0;
    for part in content.chunks(1 << 20) {
        packed += zstd::bulk::compress(part, 1).map_or(part.len(), |packed| packed.len());
    }
    rate("zstd 1 on one core", content.len(), begun);
    println!(
        "{:28} {:7.2}",
        "  of its length",
        packed as f64 / content.len() as f64
    );
}

async fn rates(name: &str, bucket: &BucketConfig, content: &[u8], cache: &Path) {
    let cache = Some(CacheConfig {
        folder: cache.to_owned(),
        bytes_max: 64 << 30,
    });
    let config = ArtifactsConfig {
        cache,
        ..ArtifactsConfig::default()
    };
    let artifacts = Artifacts::open(bucket, &config).expect("the bucket's settings");
    let scope: Scope = "measured".parse().expect("a scope");
    let request = PutRequest {
        scope: &scope,
        kind: Kind::Files,
        name: "measured",
        bytes_max: u64::MAX,
        like: None,
    };
    let begun = Instant::now();
    let put = artifacts
        .put(request.clone(), content)
        .await
        .expect("a put");
    rate(&format!("{name}: put, new"), content.len(), begun);
    println!(
        "{:28} {:7.2} in {} pieces",
        "  of its length",
        put.bytes_sent as f64 / content.len() as f64,
        put.pieces
    );
    let begun = Instant::now();
    let second = artifacts.put(request, content).await.expect("a put");
    assert_eq!(second.pieces_new, 0);
    rate(&format!("{name}: put, all there"), content.len(), begun);
    let artifact = artifacts
        .open_artifact(&scope, &put.artifact)
        .await
        .expect("a manifest");
    for what in ["get", "get, cached"] {
        let begun = Instant::now();
        let mut sink = tokio::io::sink();
        tokio::io::copy_buf(
            &mut tokio::io::BufReader::with_capacity(1 << 20, artifact.reader()),
            &mut sink,
        )
        .await
        .expect("a get");
        rate(&format!("{name}: {what}"), content.len(), begun);
    }
    let begun = Instant::now();
    let reads = 50;
    for number in 0..reads {
        let offset = artifact.bytes() / reads * number;
        artifact
            .read_at(offset, 4096.min(content.len()))
            .await
            .expect("a read");
    }
    println!(
        "{:28} {:7.1} ms",
        format!("{name}: read_at 4 KiB, cached"),
        begun.elapsed().as_secs_f64() * 1000.0 / reads as f64
    );
}

/// How much of the newer file is in the older, by each way to cut.
async fn sharing(older: &[u8], newer: &[u8]) {
    for len in [256 << 10, 1 << 20, 4 << 20] {
        let known: HashSet<Digest> = older.chunks(len).map(Digest::of).collect();
        let shared = newer
            .chunks(len)
            .filter(|piece| known.contains(&Digest::of(piece)));
        let shared: usize = shared.map(<[u8]>::len).sum();
        let name = format!("shared, fixed {} KiB", len >> 10);
        println!(
            "{name:28} {:7.1} %",
            100.0 * shared as f64 / newer.len() as f64
        );
    }
    let artifacts = Artifacts::in_memory(&ArtifactsConfig::default()).expect("memory");
    let scope: Scope = "sharing".parse().expect("a scope");
    let request = PutRequest {
        scope: &scope,
        kind: Kind::Files,
        name: "sharing",
        bytes_max: u64::MAX,
        like: None,
    };
    let first = artifacts.put(request.clone(), older).await.expect("a put");
    let second = artifacts.put(request, newer).await.expect("a put");
    let new = second.bytes_sent as f64 / first.bytes_sent as f64;
    println!(
        "{:28} {:7.1} % (of what is sent)",
        "shared, by content",
        100.0 * (1.0 - new)
    );
    println!(
        "{:28} {:7} of {}",
        "  pieces new", second.pieces_new, second.pieces
    );
}
