//! The buckets that the suite runs against, and what tests do with them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use casemate_artifacts::{
    Artifact, ArtifactError, ArtifactRef, Artifacts, ArtifactsConfig, BucketConfig,
    BucketCredentials, CacheConfig, Environment, Kind, Patience, Place, Put, PutRequest, Scope,
    Secret,
};
use tokio::io::AsyncReadExt;

use crate::emulator::{AZURE_ACCOUNT, AZURE_KEY, BUCKET};

/// What a test waits at most; a fault of one try is over in a fraction of it.
pub const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(2),
    request: Duration::from_secs(30),
    tries: 4,
    total: Duration::from_secs(60),
    wait_first: Duration::from_millis(20),
    wait_max: Duration::from_secs(2),
};

pub fn folder(path: &Path) -> BucketConfig {
    let place = format!("file://{}", path.display()).parse().unwrap();
    with_patience(BucketConfig::new(place, BucketCredentials::Anonymous))
}

pub fn s3(address: SocketAddr) -> BucketConfig {
    let credentials = BucketCredentials::S3 {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_access_key: Secret::new("a secret of S3"),
        session_token: None,
    };
    at(
        format!("s3://{BUCKET}/{}", own()),
        credentials,
        format!("http://{address}"),
    )
}

/// Google's XML API, of which moto understands what is asked here: it is S3's, with other headers.
/// It wants to see that somebody asks, and checks no further.
pub fn gcs(address: SocketAddr) -> BucketConfig {
    let token = [("GOOGLE_BEARER_TOKEN".to_owned(), "a token".to_owned())];
    let credentials = BucketCredentials::Environment(Environment::of(token));
    at(
        format!("gs://{BUCKET}/{}", own()),
        credentials,
        format!("http://{address}"),
    )
}

pub fn azure(address: SocketAddr) -> BucketConfig {
    let credentials = BucketCredentials::AzureKey(Secret::new(AZURE_KEY));
    let endpoint = format!("http://{address}/{AZURE_ACCOUNT}");
    at(
        format!("az://{AZURE_ACCOUNT}/{BUCKET}/{}", own()),
        credentials,
        endpoint,
    )
}

/// A prefix that no other test has.
fn own() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test/{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn at(place: String, credentials: BucketCredentials, endpoint: String) -> BucketConfig {
    let place: Place = place.parse().unwrap();
    let config = BucketConfig::new(place, credentials);
    let endpoint = Some(endpoint);
    with_patience(BucketConfig {
        endpoint,
        plain_http: true,
        ..config
    })
}

fn with_patience(config: BucketConfig) -> BucketConfig {
    BucketConfig {
        patience: PATIENCE,
        ..config
    }
}

pub fn open(config: &BucketConfig) -> Artifacts {
    Artifacts::open(config, &ArtifactsConfig::default()).unwrap()
}

pub fn open_cached(config: &BucketConfig, folder: &Path, bytes_max: u64) -> Artifacts {
    let cache = Some(CacheConfig {
        folder: folder.to_owned(),
        bytes_max,
    });
    Artifacts::open(
        config,
        &ArtifactsConfig {
            cache,
            ..ArtifactsConfig::default()
        },
    )
    .unwrap()
}

/// A clock that a test turns.
#[derive(Clone)]
pub struct Days(Arc<AtomicU64>);

impl Days {
    pub fn now() -> Self {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        Self(Arc::new(AtomicU64::new(now.as_secs())))
    }

    pub fn pass(&self, days: u64) {
        self.0.fetch_add(days * 24 * 3600, Ordering::Relaxed);
    }

    pub fn open(&self, config: &BucketConfig) -> Artifacts {
        let clock = Arc::clone(&self.0);
        Artifacts::open_with_clock(config, &ArtifactsConfig::default(), clock).unwrap()
    }
}

pub fn scope(name: &str) -> Scope {
    name.parse().unwrap()
}

pub fn request<'a>(scope: &'a Scope, name: &'a str) -> PutRequest<'a> {
    PutRequest {
        scope,
        kind: Kind::Files,
        name,
        bytes_max: u64::MAX,
        like: None,
    }
}

pub async fn put(artifacts: &Artifacts, scope: &Scope, content: &[u8]) -> Put {
    artifacts
        .put(request(scope, "test"), content)
        .await
        .unwrap()
}

pub async fn get(artifacts: &Artifacts, scope: &Scope, artifact: &ArtifactRef) -> Vec<u8> {
    let artifact = artifacts.open_artifact(scope, artifact).await.unwrap();
    read(&artifact).await.unwrap()
}

pub async fn read(artifact: &Artifact) -> Result<Vec<u8>, ArtifactError> {
    let mut content = Vec::new();
    match artifact.reader().read_to_end(&mut content).await {
        Ok(_) => Ok(content),
        Err(error) => Err(ArtifactError::from_io(error).unwrap()),
    }
}

/// Bytes that do not repeat and do not shrink.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// An error with all behind it, as a log has it.
pub fn chain(error: &ArtifactError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut link = std::error::Error::source(error);
    while let Some(source) = link {
        text += &format!(": {source}");
        link = source.source();
    }
    text
}
