//! What is refused before a bucket is asked, and layouts of other versions.

use std::fs;

use casemate_artifacts::{
    ArtifactError, ArtifactRef, Artifacts, ArtifactsConfig, BucketConfig, BucketCredentials,
    BucketError, Digest, Environment, OpenError, Patience, Secret,
};

use crate::emulator;
use crate::place::{PATIENCE, chain, folder, open, put, request, scope};

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

/// What is missing of credentials must not look like a missing artifact: a sweep goes by that.
#[tokio::test]
async fn missing_credentials_are_not_missing_artifacts() {
    let of = |variables: &[(&str, &str)]| {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let config = s3(BucketCredentials::Environment(Environment::of(variables)));
        let patience = Patience {
            tries: 2,
            ..PATIENCE
        };
        let endpoint = Some("http://127.0.0.1:9".to_owned());
        BucketConfig {
            patience,
            endpoint,
            plain_http: true,
            ..config
        }
    };
    let identity = of(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x"),
    ]);
    // A service of credentials that knows no such path.
    let moto = emulator::moto();
    let container = moto.map(|address| {
        of(&[
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                &format!("http://{address}/none/there"),
            ),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/dev/null"),
        ])
    });
    for config in [Some(identity), container].into_iter().flatten() {
        let artifacts = open(&config);
        let artifact = ArtifactRef {
            manifest: Digest::of(b"x"),
            bytes: 1,
        };
        let error = artifacts
            .open_artifact(&scope("team"), &artifact)
            .await
            .unwrap_err();
        assert!(
            !matches!(error, ArtifactError::NotFound { .. }),
            "{error:?}"
        );
        assert!(artifacts.remove(&scope("team"), &artifact).await.is_err());
    }
}

/// Also where the endpoint came by another way than our own setting.
#[tokio::test]
async fn nothing_goes_without_tls_unless_that_is_named() {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let artifacts = open(&s3(BucketCredentials::Environment(Environment::of(
        variables,
    ))));
    let error = artifacts
        .put(request(&scope("team"), "x"), &b"content"[..])
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::Denied { .. }), "{error:?}");
    assert!(chain(&error).contains("without TLS"), "{error:?}");
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
