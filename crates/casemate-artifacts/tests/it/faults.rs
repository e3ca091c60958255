//! Buckets that are stopped, slow, overloaded, read-only, full or lie: named errors, bounded times.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use casemate_artifacts::{ArtifactError, ArtifactRef, BucketConfig, Cause, Patience, PutRequest};

use crate::emulator;
use crate::place::{self, chain, get, noise, open, put, read, request, scope};
use crate::proxy::{Fault, Proxy};

const ALWAYS: usize = usize::MAX;

/// A proxy before a cloud, with a config that goes through it.
struct World {
    proxy: Proxy,
    config: BucketConfig,
}

impl World {
    fn of(upstream: SocketAddr, config: impl FnOnce(SocketAddr) -> BucketConfig) -> Self {
        let proxy = Proxy::before(upstream);
        let config = config(proxy.address);
        Self { proxy, config }
    }

    fn s3() -> Option<Self> {
        Some(Self::of(emulator::moto()?, place::s3))
    }

    /// A team's artifact, put before anything fails.
    async fn stored(&self, content: &[u8]) -> ArtifactRef {
        put(&open(&self.config), &scope("team"), content)
            .await
            .artifact
    }
}

/// What goes wrong once or twice is not noticed, in any cloud.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passing_faults_are_borne() {
    let Some((s3, azure)) = emulator::moto().zip(emulator::azurite()) else {
        return;
    };
    let worlds = [
        World::of(s3, place::s3),
        World::of(s3, place::gcs),
        World::of(azure, place::azure),
    ];
    for world in worlds {
        let content = noise(3 << 20, 1);
        let faults = [
            Fault::Status(503, "SlowDown", None),
            Fault::Status(500, "InternalError", None),
            Fault::Status(429, "", None),
            Fault::Cut(0),
            Fault::Cut(60),
        ];
        for fault in faults {
            world.proxy.fail("PUT", "pieces", 2, fault.clone());
            world.proxy.fail("PUT", "manifests", 1, fault.clone());
            world.proxy.fail("HEAD", "pieces", 1, fault.clone());
            world.proxy.fail("GET", "pieces", 2, fault.clone());
            world.proxy.fail("GET", "manifests", 1, fault);
            let artifacts = open(&world.config);
            let put = put(&artifacts, &scope("team"), &content).await;
            assert!(get(&artifacts, &scope("team"), &put.artifact).await == content);
            world.proxy.heal();
        }
        // Bodies that break off in the middle, with honest lengths and without.
        for fault in [Fault::Cut(200_000), Fault::Half, Fault::Flip] {
            let artifact = world.stored(&content).await;
            world.proxy.fail("GET", "pieces", 1, fault.clone());
            world.proxy.fail("GET", "manifests", 1, Fault::Flip);
            assert!(get(&open(&world.config), &scope("team"), &artifact).await == content);
            world.proxy.heal();
        }
    }
}

/// A list whose pages fail is gone on with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_borne_too() {
    let Some(world) = World::s3() else { return };
    let artifacts = open(&world.config);
    let team = scope("team");
    for number in 0..3u8 {
        put(&artifacts, &team, &[number]).await;
    }
    world
        .proxy
        .fail("GET", "list-type", 2, Fault::Status(503, "SlowDown", None));
    assert_eq!(artifacts.manifests(&team).await.unwrap().len(), 3);
    world.proxy.fail("GET", "list-type", 2, Fault::Cut(0));
    assert_eq!(artifacts.scopes().await.unwrap(), [team]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_obeyed() {
    let Some(world) = World::s3() else { return };
    let artifact = world.stored(b"content").await;
    world.proxy.fail(
        "GET",
        "manifests",
        1,
        Fault::Status(503, "SlowDown", Some(1)),
    );
    let begun = Instant::now();
    assert_eq!(
        get(&open(&world.config), &scope("team"), &artifact).await,
        b"content"
    );
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

/// A fault that stays, and what becomes of a put and of a get.
async fn check(fault: Fault, expected: impl Fn(&ArtifactError) -> bool) {
    let Some(world) = World::s3() else { return };
    let content = noise(1 << 20, 2);
    let artifact = world.stored(&content).await;
    world.proxy.fail("GET", "", ALWAYS, fault.clone());
    world.proxy.fail("PUT", "", ALWAYS, fault.clone());
    world.proxy.fail("HEAD", "", ALWAYS, fault.clone());
    let config = BucketConfig {
        patience: Patience {
            request: Duration::from_secs(1),
            tries: 3,
            ..place::PATIENCE
        },
        ..world.config.clone()
    };
    let artifacts = open(&config);
    let begun = Instant::now();
    let team = scope("team");
    let got = artifacts.open_artifact(&team, &artifact).await.unwrap_err();
    assert!(expected(&got), "{fault:?}: {got:?}");
    let put = artifacts
        .put(request(&team, "x"), &content[..])
        .await
        .unwrap_err();
    assert!(expected(&put), "{fault:?}: {put:?}");
    let swept = artifacts
        .sweep(&team, Default::default())
        .await
        .unwrap_err();
    assert!(expected(&swept), "{fault:?}: {swept:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(40),
        "{fault:?}: {:?}",
        begun.elapsed()
    );
    for error in [&got, &put] {
        let text = chain(error);
        assert!(
            !text.contains("secret of S3") && !text.contains("AKIA"),
            "{text}"
        );
    }
    // And when it is over, all goes on.
    world.proxy.heal();
    assert!(get(&artifacts, &team, &artifact).await == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_fails_or_stalls_is_unavailable() {
    let unavailable = |error: &ArtifactError| {
        matches!(error, ArtifactError::Unavailable { .. }) && error.is_retryable()
    };
    check(Fault::Status(500, "InternalError", None), unavailable).await;
    check(Fault::Status(503, "SlowDown", Some(0)), unavailable).await;
    check(Fault::Status(429, "", None), unavailable).await;
    check(Fault::Cut(10), unavailable).await;
    check(Fault::Late(Duration::from_secs(4)), |error| {
        matches!(
            error,
            ArtifactError::Unavailable {
                cause: Cause::Slow(_),
                ..
            }
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_refuses_is_not_asked_again() {
    let denied = |error: &ArtifactError| {
        matches!(error, ArtifactError::Denied { .. }) && !error.is_retryable()
    };
    check(Fault::Status(403, "AccessDenied", None), denied).await;
    check(Fault::Status(403, "SignatureDoesNotMatch", None), denied).await;
    check(Fault::Status(400, "ExpiredToken", None), denied).await;
    check(Fault::Status(401, "", None), denied).await;
    check(Fault::Status(404, "NoSuchBucket", None), denied).await;
    check(Fault::Status(301, "PermanentRedirect", None), denied).await;
    check(Fault::Endless, denied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_says_whether_a_bucket_can_be_used() {
    let Some(world) = World::s3() else { return };
    let artifacts = open(&world.config);
    artifacts.look().await.unwrap();
    let missing = Fault::Status(404, "NoSuchBucket", None);
    world.proxy.fail("GET", "format", ALWAYS, missing);
    let error = artifacts.look().await.unwrap_err();
    assert!(
        matches!(error, ArtifactError::Denied { .. }),
        "{}",
        chain(&error)
    );
    world.proxy.heal();
    artifacts.look().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_and_a_full_bucket_still_give() {
    let Some(world) = World::s3() else { return };
    let team = scope("team");
    let content = noise(2 << 20, 3);
    let artifact = world.stored(&content).await;
    for (status, code) in [(403, "AccessDenied"), (507, "XMinioStorageFull")] {
        world
            .proxy
            .fail("PUT", "pieces", ALWAYS, Fault::Status(status, code, None));
        let artifacts = open(&world.config);
        let other = noise(2 << 20, u64::from(status));
        let error = artifacts
            .put(request(&team, "x"), &other[..])
            .await
            .unwrap_err();
        match status {
            403 => assert!(matches!(error, ArtifactError::Denied { .. }), "{error:?}"),
            _ => assert!(matches!(error, ArtifactError::Full { .. }), "{error:?}"),
        }
        assert!(get(&artifacts, &team, &artifact).await == content);
        world.proxy.heal();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_bucket_is_unavailable() {
    let Some(world) = World::s3() else { return };
    let artifact = world.stored(b"content").await;
    world.proxy.stop();
    let artifacts = open(&world.config);
    let begun = Instant::now();
    let error = artifacts
        .open_artifact(&scope("team"), &artifact)
        .await
        .unwrap_err();
    let cause = matches!(
        &error,
        ArtifactError::Unavailable {
            cause: Cause::Connect(_),
            ..
        }
    );
    assert!(cause && error.is_retryable(), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_is_corrupt_and_hands_out_nothing() {
    let Some(world) = World::s3() else { return };
    let team = scope("team");
    let content = noise(3 << 20, 4);
    let artifact = world.stored(&content).await;
    for fault in [Fault::Flip, Fault::Half] {
        world.proxy.fail("GET", "manifests", ALWAYS, fault.clone());
        let error = open(&world.config)
            .open_artifact(&team, &artifact)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ArtifactError::Corrupt { .. }),
            "{fault:?}: {error:?}"
        );
        // Nor does a sweep go by it.
        let swept = open(&world.config).sweep(&team, Default::default()).await;
        assert!(swept.is_ok_and(|swept| swept.deleted == 0));
        world.proxy.heal();

        world.proxy.fail("GET", "pieces", ALWAYS, fault.clone());
        let artifacts = open(&world.config);
        let opened = artifacts.open_artifact(&team, &artifact).await.unwrap();
        let error = read(&opened).await.unwrap_err();
        assert!(
            matches!(error, ArtifactError::Corrupt { .. }),
            "{fault:?}: {error:?}"
        );
        assert!(!error.is_retryable());
        world.proxy.heal();
        assert!(read(&opened).await.unwrap() == content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_is_not_looked_for() {
    let Some(world) = World::s3() else { return };
    let team = scope("team");
    let content = noise(8 << 20, 5);
    let artifacts = open(&world.config);
    let first = put(&artifacts, &team, &content).await;
    world.proxy.count("", "");
    put(&artifacts, &team, &content).await;
    assert_eq!(world.proxy.count("HEAD", "pieces"), 0);
    // Another process asks for each piece once, unless it is told of an artifact that is alike.
    put(&open(&world.config), &team, &content).await;
    assert_eq!(world.proxy.count("HEAD", "pieces"), first.pieces);
    let like = Some(first.artifact);
    let request = PutRequest {
        like,
        ..request(&team, "x")
    };
    let put = open(&world.config)
        .put(request, &content[..])
        .await
        .unwrap();
    assert_eq!(
        (world.proxy.count("HEAD", "pieces"), put.pieces_new),
        (0, 0)
    );
}

/// A put that fails half-way goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_try_sends_what_is_missing() {
    let Some(world) = World::s3() else { return };
    let team = scope("team");
    let content = noise(12 << 20, 6);
    let artifacts = open(&world.config);
    world.proxy.fail(
        "PUT",
        "manifests",
        ALWAYS,
        Fault::Status(503, "SlowDown", None),
    );
    let error = artifacts
        .put(request(&team, "x"), &content[..])
        .await
        .unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    world.proxy.heal();
    let put = put(&open(&world.config), &team, &content).await;
    assert_eq!((put.pieces_new, put.bytes_sent), (0, 0));
}

/// S3 says of an upload that meets another of the same name that there is a conflict, whether the
/// other ends well or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_meet_are_borne() {
    let Some(world) = World::s3() else { return };
    let content = noise(2 << 20, 9);
    let conflict = Fault::Status(409, "ConditionalRequestConflict", None);
    world.proxy.fail("PUT", "pieces", 2, conflict);
    let artifacts = open(&world.config);
    let put = put(&artifacts, &scope("team"), &content).await;
    assert!(get(&artifacts, &scope("team"), &put.artifact).await == content);
}

/// The answer to a write is lost: the next try finds what the first one made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_no_failure() {
    let Some(world) = World::s3() else { return };
    let content = noise(2 << 20, 7);
    world.proxy.fail("PUT", "", 3, Fault::Cut(0));
    let artifacts = open(&world.config);
    let put = put(&artifacts, &scope("team"), &content).await;
    assert!(get(&artifacts, &scope("team"), &put.artifact).await == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_put_leaves_nothing_to_open() {
    let Some(world) = World::s3() else { return };
    let team = scope("team");
    let content = noise(16 << 20, 8);
    let artifacts = open(&world.config);
    world
        .proxy
        .fail("PUT", "pieces", ALWAYS, Fault::Late(Duration::from_secs(3)));
    let put = artifacts.put(request(&team, "x"), &content[..]);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), put)
            .await
            .is_err()
    );
    assert_eq!(artifacts.manifests(&team).await.unwrap(), []);
    // Nothing of it goes on.
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.proxy.count("", "");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.proxy.count("PUT", ""), 0);
}
