//! What is refused before a bucket is asked, and layouts of other versions.

use std::fs;

use casemate_artifacts::{
    ArtifactError, Artifacts, ArtifactsConfig, BucketConfig, BucketCredentials, BucketError,
    Environment, OpenError, Secret,
};

use crate::place::{folder, open, put, request, scope};

#[track_caller]
fn refused(config: &BucketConfig) -> BucketError {
    match Artifacts::open(config, &ArtifactsConfig::default()) {
        Err(OpenError::Bucket(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn s3(credentials: BucketCredentials) -> BucketConfig {
    BucketConfig::new("s3://artifacts".parse().unwrap(), credentials)
}

#[tokio::test]
async fn settings_that_do_not_fit_are_refused() {
    let key = BucketCredentials::AzureKey(Secret::new("c2VjcmV0"));
    assert!(matches!(refused(&s3(key)), BucketError::Credentials { .. }));
    let endpoint = |endpoint: &str| {
        let endpoint = Some(endpoint.to_owned());
        refused(&BucketConfig {
            endpoint,
            ..s3(BucketCredentials::Anonymous)
        })
    };
    assert!(matches!(
        endpoint("http://127.0.0.1:9"),
        BucketError::PlainHttp
    ));
    assert!(matches!(
        endpoint("https://user:pass@host"),
        BucketError::Endpoint
    ));
    assert!(matches!(endpoint("ftp://host"), BucketError::Endpoint));
    let authorities_pem =
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    let config = BucketConfig {
        authorities_pem,
        ..s3(BucketCredentials::Anonymous)
    };
    assert!(matches!(refused(&config), BucketError::Tls(_)));
}

#[tokio::test]
async fn environments_are_read_and_not_shown() {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
        ("API_KEY_SECRET", "not ours"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = Environment::of(variables);
    let shown = format!("{environment:?}");
    assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("API_KEY_SECRET"));
    let config = s3(BucketCredentials::Environment(environment));
    assert!(!format!("{config:?}").contains("hidden"));
    open(&config);
    let named = s3(BucketCredentials::S3 {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_access_key: Secret::new("hidden"),
        session_token: Some(Secret::new("hidden")),
    });
    assert!(!format!("{named:?}").contains("hidden"));
}

#[tokio::test]
async fn another_layout_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config = folder(dir.path());
    let stored = put(&open(&config), &scope("team"), b"content").await;
    fs::write(dir.path().join("format"), "casemate artifacts 2\n").unwrap();
    let artifacts = open(&config);
    let team = scope("team");
    let put = artifacts.put(request(&team, "x"), &b"other"[..]).await;
    assert!(matches!(put, Err(ArtifactError::Layout { .. })), "{put:?}");
    let swept = artifacts.sweep(&team, Default::default()).await;
    assert!(
        matches!(swept, Err(ArtifactError::Layout { .. })),
        "{swept:?}"
    );
    // What is read is checked by its own digest and version.
    artifacts
        .open_artifact(&team, &stored.artifact)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_source_that_fails_fails_the_put() {
    let dir = tempfile::tempdir().unwrap();
    let artifacts = open(&folder(dir.path()));
    let team = scope("team");
    let source = tokio_util::io::StreamReader::new(futures_util::stream::iter([
        Ok(bytes::Bytes::from_static(b"begun")),
        Err(std::io::Error::other("gone")),
    ]));
    let put = artifacts.put(request(&team, "x"), source).await;
    assert!(matches!(put, Err(ArtifactError::Source(_))), "{put:?}");
    assert_eq!(artifacts.manifests(&team).await.unwrap(), []);
}
