//! The client of each cloud, of what was configured.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::folder;
use super::service::{Service, TlsError};
use crate::clock::Clock;
use crate::config::{BucketConfig, BucketCredentials, Encryption};
use crate::place::Place;

/// Why a bucket cannot be set up; nothing was asked of it yet.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error("the credentials are of another cloud than {place}")]
    Credentials { place: Place },
    #[error("the endpoint is an address with http:// or https:// and no user or query")]
    Endpoint,
    #[error("the endpoint has no TLS, and plain HTTP is not allowed")]
    PlainHttp,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the folder {place} cannot be made or opened: {kind}")]
    Folder {
        place: Place,
        kind: std::io::ErrorKind,
    },
    /// What `object_store` says of settings; it names keys, not values.
    #[error("the settings of {place} do not fit together: {why}")]
    Settings { place: Place, why: String },
}

pub(super) fn build(
    config: &BucketConfig,
    clock: Clock,
) -> Result<Arc<dyn ObjectStore>, BucketError> {
    if let Some(endpoint) = &config.endpoint {
        check_endpoint(endpoint, config.plain_http)?;
    }
    let service = || Service::new(&config.authorities_pem, config.patience.connect, clock);
    match &config.place {
        Place::S3 { bucket, .. } => s3(config, bucket, service()?),
        Place::Gcs { bucket, .. } => gcs(config, bucket, service()?),
        Place::Azure {
            account, container, ..
        } => azure(config, account, container, service()?),
        Place::Folder(path) => match folder::open(path) {
            Ok(store) => Ok(Arc::new(store)),
            Err(kind) => Err(BucketError::Folder {
                place: config.place.clone(),
                kind,
            }),
        },
    }
}

fn check_endpoint(endpoint: &str, plain_http: bool) -> Result<(), BucketError> {
    let uri: http::Uri = endpoint.parse().map_err(|_| BucketError::Endpoint)?;
    if uri.host().is_none() || endpoint.contains(['@', '?', '#']) {
        return Err(BucketError::Endpoint);
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if plain_http => Ok(()),
        Some("http") => Err(BucketError::PlainHttp),
        _ => Err(BucketError::Endpoint),
    }
}

fn options(config: &BucketConfig) -> ClientOptions {
    ClientOptions::new().with_allow_http(config.plain_http)
}

/// `super::retry` tries again, signs anew and obeys `Retry-After`.
fn once() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        ..RetryConfig::default()
    }
}

fn s3(
    config: &BucketConfig,
    bucket: &str,
    service: Service,
) -> Result<Arc<dyn ObjectStore>, BucketError> {
    let mut builder = AmazonS3Builder::new();
    match &config.credentials {
        BucketCredentials::Environment(environment) => {
            for (name, value) in environment.iter() {
                if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                    builder = builder.with_config(key, value);
                }
            }
        }
        BucketCredentials::S3 {
            access_key_id,
            secret_access_key,
            session_token,
        } => {
            builder = builder
                .with_access_key_id(access_key_id)
                .with_secret_access_key(secret_access_key.expose());
            if let Some(token) = session_token {
                builder = builder.with_token(token.expose());
            }
        }
        BucketCredentials::Anonymous => builder = builder.with_skip_signature(true),
        BucketCredentials::GcsServiceAccount(_) | BucketCredentials::AzureKey(_) => {
            return Err(other_cloud(config));
        }
    }
    builder = match &config.encryption {
        // The key's own type is not public.
        Encryption::Aes256 => match "aws_server_side_encryption".parse() {
            Ok(key) => builder.with_config(key, "AES256"),
            Err(error) => return Err(settings(config, &error)),
        },
        Encryption::Kms(key) => builder.with_sse_kms_encryption(key),
        Encryption::BucketDefault => builder,
    };
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    let built = builder
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(config.bucket_in_host)
        .with_client_options(options(config))
        .with_retry(once())
        .with_http_connector(service)
        .build();
    Ok(Arc::new(built.map_err(|error| settings(config, &error))?))
}

fn gcs(
    config: &BucketConfig,
    bucket: &str,
    service: Service,
) -> Result<Arc<dyn ObjectStore>, BucketError> {
    let mut builder = GoogleCloudStorageBuilder::new();
    match &config.credentials {
        BucketCredentials::Environment(environment) => {
            for (name, value) in environment.iter() {
                if let Ok(key) = name.to_ascii_lowercase().parse() {
                    builder = builder.with_config(key, value);
                }
            }
        }
        BucketCredentials::GcsServiceAccount(key) => {
            builder = builder.with_service_account_key(key.expose());
        }
        BucketCredentials::Anonymous => builder = builder.with_skip_signature(true),
        BucketCredentials::S3 { .. } | BucketCredentials::AzureKey(_) => {
            return Err(other_cloud(config));
        }
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    let built = builder
        .with_bucket_name(bucket)
        .with_client_options(options(config))
        .with_retry(once())
        .with_http_connector(service)
        .build();
    Ok(Arc::new(built.map_err(|error| settings(config, &error))?))
}

fn azure(
    config: &BucketConfig,
    account: &str,
    container: &str,
    service: Service,
) -> Result<Arc<dyn ObjectStore>, BucketError> {
    let mut builder = MicrosoftAzureBuilder::new();
    match &config.credentials {
        BucketCredentials::Environment(environment) => {
            for (name, value) in environment.iter() {
                if name == "IDENTITY_ENDPOINT" {
                    builder = builder.with_msi_endpoint(value);
                } else if let Ok(key) = name.to_ascii_lowercase().parse() {
                    builder = builder.with_config(key, value);
                }
            }
        }
        BucketCredentials::AzureKey(key) => builder = builder.with_access_key(key.expose()),
        BucketCredentials::Anonymous => builder = builder.with_skip_signature(true),
        BucketCredentials::S3 { .. } | BucketCredentials::GcsServiceAccount(_) => {
            return Err(other_cloud(config));
        }
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let built = builder
        .with_account(account)
        .with_container_name(container)
        .with_allow_http(config.plain_http)
        .with_client_options(options(config))
        .with_retry(once())
        .with_http_connector(service)
        .build();
    Ok(Arc::new(built.map_err(|error| settings(config, &error))?))
}

fn other_cloud(config: &BucketConfig) -> BucketError {
    BucketError::Credentials {
        place: config.place.clone(),
    }
}

/// The innermost reason only: the outer ones may quote what was given.
fn settings(config: &BucketConfig, error: &object_store::Error) -> BucketError {
    let why = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    BucketError::Settings {
        place: config.place.clone(),
        why,
    }
}
