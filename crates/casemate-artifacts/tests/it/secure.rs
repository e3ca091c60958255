//! TLS to a bucket: an authority of one's own is believed, others are not.

use casemate_artifacts::{ArtifactError, BucketConfig, Cause};

use crate::emulator;
use crate::place::{get, noise, open, put, request, s3, scope};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_authorities_that_are_named_are_believed() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["127.0.0.1".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).unwrap();
    let pem = certified.cert.pem();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, &pem).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let Some(moto) = emulator::moto_with_tls(&cert, &key) else {
        return;
    };
    let endpoint = Some(format!("https://{}", moto.address));
    let config = BucketConfig {
        endpoint,
        plain_http: false,
        ..s3(moto.address)
    };
    let strange = open(&config)
        .put(request(&scope("team"), "x"), &b"content"[..])
        .await;
    let is_connect = matches!(
        &strange,
        Err(ArtifactError::Unavailable {
            cause: Cause::Connect(_),
            ..
        })
    );
    assert!(is_connect, "{strange:?}");

    let artifacts = open(&BucketConfig {
        authorities_pem: pem.into_bytes(),
        ..config
    });
    // The bucket is not there yet: that is said, and is not a missing artifact.
    let none = artifacts
        .put(request(&scope("team"), "x"), &b"content"[..])
        .await;
    assert!(
        matches!(none, Err(ArtifactError::Denied { .. })),
        "{none:?}"
    );
    moto.make_bucket();
    let content = noise(2 << 20, 1);
    let put = put(&artifacts, &scope("team"), &content).await;
    assert!(get(&artifacts, &scope("team"), &put.artifact).await == content);
}
