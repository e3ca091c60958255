//! Objects that are longer than any that a test would put: they go in parts.

use super::*;
use crate::Digest;
use crate::config::{BucketConfig, BucketCredentials, Secret};
use crate::emulator::{self, AZURE_ACCOUNT, AZURE_KEY, BUCKET};

const WHAT: What = What::Layout;

fn open(place: &str, credentials: BucketCredentials, endpoint: Option<String>) -> Bucket {
    let config = BucketConfig::new(place.parse().unwrap(), credentials);
    let config = BucketConfig {
        endpoint,
        plain_http: true,
        ..config
    };
    Bucket::open(&config, Clock::system()).unwrap()
}

async fn goes_in_parts(bucket: &Bucket) {
    let len = 2 * PART_BYTES + 12_345;
    let bytes: Vec<u8> = (0..len / 32 + 1)
        .flat_map(|n: usize| *Digest::of(&n.to_le_bytes()).as_bytes())
        .take(len)
        .collect();
    let bytes = Bytes::from(bytes);
    assert!(bucket.create("long", bytes.clone(), WHAT).await.unwrap());
    assert_eq!(bucket.find("long", WHAT).await.unwrap(), Some(len as u64));
    let read = bucket
        .read("long", len as u64, WHAT)
        .await
        .unwrap()
        .unwrap();
    assert!(read == bytes);
    assert_eq!(
        bucket.read("long", len as u64 - 1, WHAT).await.unwrap(),
        None
    );
    bucket
        .delete(&["long".into(), "none".into()], WHAT)
        .await
        .unwrap();
    assert_eq!(bucket.find("long", WHAT).await.unwrap(), None);
}

/// The second writer of a name is told, and changes nothing.
async fn is_not_overwritten(bucket: &Bucket) {
    for (bytes, new) in [(&b"first"[..], true), (b"second", false)] {
        let created = bucket.create("once", Bytes::from_static(bytes), WHAT).await;
        assert_eq!(created.unwrap(), new);
    }
    assert_eq!(
        bucket.read("once", 99, WHAT).await.unwrap().unwrap(),
        "first"
    );
}

#[tokio::test]
async fn memory_and_folders_take_long_objects() {
    let dir = tempfile::tempdir().unwrap();
    let place = format!("file://{}", dir.path().display());
    for bucket in [
        Bucket::in_memory(),
        open(&place, BucketCredentials::Anonymous, None),
    ] {
        goes_in_parts(&bucket).await;
        is_not_overwritten(&bucket).await;
    }
}

#[tokio::test]
async fn s3_takes_long_objects() {
    let Some(address) = emulator::moto() else {
        return;
    };
    let credentials = BucketCredentials::S3 {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_access_key: Secret::new("x"),
        session_token: None,
    };
    let place = format!("s3://{BUCKET}/long");
    let bucket = open(&place, credentials, Some(format!("http://{address}")));
    goes_in_parts(&bucket).await;
    is_not_overwritten(&bucket).await;
}

#[tokio::test]
async fn azure_takes_long_objects() {
    let Some(address) = emulator::azurite() else {
        return;
    };
    let credentials = BucketCredentials::AzureKey(Secret::new(AZURE_KEY));
    let place = format!("az://{AZURE_ACCOUNT}/{BUCKET}/long");
    let endpoint = format!("http://{address}/{AZURE_ACCOUNT}");
    let bucket = open(&place, credentials, Some(endpoint));
    goes_in_parts(&bucket).await;
    is_not_overwritten(&bucket).await;
}
