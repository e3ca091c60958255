//! `[artifacts]`: the bucket through which nodes have what others made.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use casemate_artifacts::{
    Artifacts, ArtifactsConfig, BucketConfig, BucketCredentials, CloudKind, Encryption,
    Environment, Place, Secret as BucketSecret,
};
use serde::{Deserialize, Serialize};

use super::Secret;

/// Layers of templates, files of snapshots and of paused sandboxes go there, and come from there. Without
/// a bucket each is only at the node where it was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bucket {
    /// `s3://BUCKET[/PREFIX]`, `gs://BUCKET[/PREFIX]`, `az://ACCOUNT/CONTAINER[/PREFIX]`,
    /// `file:///PATH`; or a bucket's name alone, of `artifacts.cloud`.
    pub bucket: String,
    /// `s3`, `gcs` or `azure`: of whom a bare name is.
    pub cloud: String,
    /// Where the cloud's API is, if not at its own place.
    pub endpoint: String,
    pub region: String,
    /// S3: the bucket is named in the host.
    pub bucket_in_host: bool,
    /// `environment` (as the cloud's own tools find them), `key` or `anonymous`.
    pub credentials: String,
    /// Of `key`: S3's key id.
    pub access_key_id: String,
    /// Of `key`: S3's secret key, Azure's account key, or the JSON of a Google service account's.
    pub secret_key: Secret,
    /// PEM file of authorities beside the system's.
    pub ca_file: String,
    /// S3: `aes256`, `kms:KEY` or `bucket`, which asks for nothing.
    pub encryption: String,
    /// An endpoint without TLS: what is stored and who stores it travel in clear.
    pub insecure_plaintext: bool,
    /// Pieces on their way at once.
    pub pieces_at_once: usize,
    /// What a node keeps of layers and files that lie in the bucket too, MiB; 0: a quarter of the disk.
    pub cache_mib_max: u64,
    /// How long a sandbox of a cluster is paused before its files go there; 0: never.
    pub paused_after_seconds: u32,
    /// The cloud's variables of the environment that this process was started in; children have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) variables: Vec<(String, Secret)>,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            cloud: "s3".into(),
            endpoint: String::new(),
            region: String::new(),
            bucket_in_host: false,
            credentials: "environment".into(),
            access_key_id: String::new(),
            secret_key: Secret::default(),
            ca_file: String::new(),
            encryption: "aes256".into(),
            insecure_plaintext: false,
            pieces_at_once: ArtifactsConfig::default().pieces_at_once,
            cache_mib_max: 0,
            paused_after_seconds: 60,
            variables: Vec::new(),
        }
    }
}

const PIECES_MAX: usize = 256;

impl Bucket {
    /// Takes along what of this process's environment clouds read.
    pub(super) fn with_environment(mut self) -> Self {
        if !self.bucket.is_empty() && self.credentials == "environment" {
            let kept = std::env::vars_os().filter_map(|(name, value)| {
                let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
                Environment::is_ours(&name).then(|| (name, Secret::new(value)))
            });
            self.variables = kept.collect();
        }
        self
    }

    /// `None`: there is no bucket. Asks nothing of it; reads the file of authorities.
    pub fn config(&self) -> anyhow::Result<Option<BucketConfig>> {
        if self.bucket.is_empty() {
            return Ok(None);
        }
        let place = self.place()?;
        let mut config = BucketConfig::new(place, self.credentials()?);
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        config.endpoint = given(&self.endpoint);
        config.region = given(&self.region);
        config.bucket_in_host = self.bucket_in_host;
        config.plain_http = self.insecure_plaintext;
        ensure!(
            !self.endpoint.starts_with("http://") || self.insecure_plaintext,
            "artifacts.endpoint is without TLS: artifacts.insecure_plaintext = true allows that"
        );
        if !self.ca_file.is_empty() {
            let read = fs::read(&self.ca_file);
            config.authorities_pem =
                read.with_context(|| format!("artifacts.ca_file: {}", self.ca_file))?;
        }
        config.encryption = match self.encryption.as_str() {
            "aes256" => Encryption::Aes256,
            "bucket" => Encryption::BucketDefault,
            other => match other.strip_prefix("kms:") {
                Some(key) if !key.is_empty() => Encryption::Kms(key.to_owned()),
                _ => bail!("artifacts.encryption: {other:?} is not aes256, kms:KEY or bucket"),
            },
        };
        ensure!(
            (1..=PIECES_MAX).contains(&self.pieces_at_once),
            "artifacts.pieces_at_once is 1 to {PIECES_MAX}"
        );
        Ok(Some(config))
    }

    /// How long a sandbox is paused before its files go there; `None`: never.
    pub fn paused_stored_after(&self) -> Option<Duration> {
        let seconds = self.paused_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// The bucket, for whoever carries or sweeps; it may be down.
    pub fn open(&self) -> anyhow::Result<Option<Artifacts>> {
        let Some(config) = self.config()? else {
            return Ok(None);
        };
        let artifacts = ArtifactsConfig {
            pieces_at_once: self.pieces_at_once,
            ..ArtifactsConfig::default()
        };
        let opened = Artifacts::open(&config, &artifacts).context("[artifacts]")?;
        Ok(Some(opened))
    }

    fn place(&self) -> anyhow::Result<Place> {
        let kind = match self.cloud.as_str() {
            "s3" => CloudKind::S3,
            "gcs" => CloudKind::Gcs,
            "azure" => CloudKind::Azure,
            other => bail!("artifacts.cloud: {other:?} is not s3, gcs or azure"),
        };
        let place = match self.bucket.contains("://") {
            true => self.bucket.parse(),
            false => Place::bare(kind, &self.bucket),
        };
        place.context("artifacts.bucket (STORAGE_BUCKET)")
    }

    fn credentials(&self) -> anyhow::Result<BucketCredentials> {
        let secret = || BucketSecret::new(self.secret_key.expose());
        Ok(match self.credentials.as_str() {
            "environment" => {
                let variables = self.variables.iter();
                let variables =
                    variables.map(|(name, value)| (name.clone(), value.expose().to_owned()));
                BucketCredentials::Environment(Environment::of(variables))
            }
            "anonymous" => BucketCredentials::Anonymous,
            "key" => {
                ensure!(
                    !self.secret_key.is_empty(),
                    "artifacts.credentials is \"key\": artifacts.secret_key is missing"
                );
                match self.place()? {
                    Place::S3 { .. } => BucketCredentials::S3 {
                        access_key_id: self.access_key_id.clone(),
                        secret_access_key: secret(),
                        session_token: None,
                    },
                    Place::Gcs { .. } => BucketCredentials::GcsServiceAccount(secret()),
                    Place::Azure { .. } => BucketCredentials::AzureKey(secret()),
                    Place::Folder { .. } => BucketCredentials::Anonymous,
                }
            }
            other => bail!(
                "artifacts.credentials: {other:?} is not \"environment\", \"key\" or \"anonymous\""
            ),
        })
    }
}
