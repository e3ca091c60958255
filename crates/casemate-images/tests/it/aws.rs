//! Amazon's and Google's logins.

use casemate_images::{Credentials, ImageError, Images};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::files::{config, read, simple};
use crate::server::{Answer, Asked, Server, as_registry};

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn keys(region: &str) -> Credentials {
    Credentials::Aws {
        access_key_id: KEY.into(),
        secret_access_key: SECRET.into(),
        region: region.into(),
    }
}

/// What the signature must be, by what arrived.
fn signature(asked: &Asked, signed: &str) -> String {
    let hash = |text: &[u8]| hex::encode(Sha256::digest(text));
    let mut canonical = format!("{}\n{}\n\n", asked.method, asked.path);
    for name in signed.split(';') {
        canonical += &format!("{name}:{}\n", asked.header(name).unwrap());
    }
    canonical += &format!("\n{signed}\n{}", hash(&asked.body));
    let date = asked.header("x-amz-date").unwrap();
    let day = &date[..8];
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{day}/eu-west-1/ecr/aws4_request\n{}",
        hash(canonical.as_bytes())
    );
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in [day, "eu-west-1", "ecr", "aws4_request", &text] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    hex::encode(key)
}

fn ecr(asked: &Asked) -> Answer {
    let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    assert_eq!(asked.header("x-amz-target"), Some(target));
    assert_eq!(asked.body, b"{}");
    let authorization = asked.header("authorization").unwrap();
    let signed = "content-type;host;x-amz-date;x-amz-target";
    let right = format!(
        "SignedHeaders={signed}, Signature={}",
        signature(asked, signed)
    );
    let scope = format!("Credential={KEY}/");
    match authorization.contains(&scope) && authorization.ends_with(&right) {
        // `AWS:password`.
        true => Answer::new(
            200,
            r#"{"authorizationData":[{"authorizationToken":"QVdTOnBhc3N3b3Jk"}]}"#,
        ),
        false => Answer::new(400, r#"{"__type":"InvalidSignatureException"}"#),
    }
}

/// A registry that takes one `Authorization`.
async fn registry(right: &'static str) -> Server {
    let files = simple(10);
    Server::start(move |asked| match asked.header("authorization") {
        Some(value) if value == right => as_registry(&files, asked),
        _ => Answer::error(401, "UNAUTHORIZED").header("www-authenticate", "Basic realm=\"x\""),
    })
    .await
}

#[tokio::test]
async fn access_keys_are_changed_for_a_password() {
    let (registry, api) = (
        registry("Basic QVdTOnBhc3N3b3Jk").await,
        Server::start(ecr).await,
    );
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&registry.host]);
    config.ecr_endpoint = Some(format!("http://{}", api.host));
    let images = Images::open(config).unwrap();
    let reference = format!("{}/a", registry.host);
    let image = images
        .resolve(&reference, &keys("eu-west-1"), "team")
        .await
        .unwrap();
    read(&images, &image, 0).await.unwrap();
    assert_eq!(api.asked().len(), 1);

    let mut wrong = keys("eu-west-1");
    if let Credentials::Aws {
        secret_access_key, ..
    } = &mut wrong
    {
        secret_access_key.push('x');
    }
    let error = images
        .resolve(&reference, &wrong, "team")
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn a_region_is_no_way_to_another_host() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[])).unwrap();
    let resolved = images
        .resolve("x.example/a", &keys("evil.example/"), "team")
        .await;
    assert_eq!(
        resolved.unwrap_err().to_string(),
        "invalid registry credentials: the AWS region is not a few lowercase words with hyphens \
         between"
    );
}

#[tokio::test]
async fn a_service_account_is_a_password() {
    // `_json_key:{"type":"service_account"}`.
    let registry = registry("Basic X2pzb25fa2V5OnsidHlwZSI6InNlcnZpY2VfYWNjb3VudCJ9").await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&registry.host])).unwrap();
    let credentials = Credentials::Gcp {
        service_account_json: r#"{"type":"service_account"}"#.into(),
    };
    let reference = format!("{}/a", registry.host);
    images
        .resolve(&reference, &credentials, "team")
        .await
        .unwrap();
}

#[tokio::test]
async fn tokens_are_asked_for_once_and_again_when_they_end() {
    let files = simple(10);
    let tokens = Server::start(|asked| {
        let query = "/token?service=the%20registry&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!(asked.path, query);
        match asked.header("authorization") {
            Some("Basic dXNlcjpzZWNyZXQ=") => Answer::new(200, r#"{"access_token":"t"}"#),
            _ => Answer::new(401, "{}"),
        }
    })
    .await;
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"the registry\"",
        tokens.host
    );
    let uses = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let known = asked.header("authorization") == Some("Bearer t");
        // The second use of the token is one too many.
        match known && uses.fetch_add(1, std::sync::atomic::Ordering::SeqCst) != 1 {
            true => as_registry(&files, asked),
            false => {
                Answer::error(401, "UNAUTHORIZED").header("www-authenticate", challenge.clone())
            }
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host, &tokens.host])).unwrap();
    let login = |password: &str| Credentials::Basic {
        username: "user".into(),
        password: password.into(),
    };
    let reference = format!("{}/a/b", server.host);
    let image = images
        .resolve(&reference, &login("secret"), "team")
        .await
        .unwrap();
    read(&images, &image, 0).await.unwrap();
    assert_eq!(tokens.asked().len(), 2);
    for wrong in [login("wrong"), Credentials::Anonymous] {
        let error = images
            .resolve(&reference, &wrong, "team")
            .await
            .unwrap_err();
        assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    }
}
