//! Where nobody can make us go.

use casemate_images::{Credentials, Digest, ImageError, Images};

use crate::files::{config, read, simple};
use crate::server::{Answer, Server, as_registry};

const ANYONE: Credentials = Credentials::Anonymous;

#[track_caller]
fn check_closed(error: &ImageError, reference: &str) {
    let text =
        format!("failed to pull image '{reference}': unable to retrieve image from registry");
    assert_eq!(error.to_string(), text);
    match error {
        ImageError::Unreachable { cause, .. } => assert!(cause.is_closed(), "{cause}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn registries_in_closed_ranges_must_be_named() {
    let server = Server::of(&simple(10)).await;
    let port = server.host.split(':').next_back().unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Another port of a named host is not named.
    let images = Images::open(config(dir.path(), &["127.0.0.1:1"])).unwrap();
    for host in [
        &server.host,
        &format!("localhost:{port}"),
        &format!("127.1:{port}"),
        &format!("2130706433:{port}"),
        &format!("0x7f000001:{port}"),
        &format!("0.0.0.0:{port}"),
        &format!("[::1]:{port}"),
        &format!("[::ffff:127.0.0.1]:{port}"),
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
    ] {
        let reference = format!("{host}/a");
        let error = images.resolve(&reference, &ANYONE, "").await.unwrap_err();
        check_closed(&error, &reference);
    }
    assert_eq!(server.asked().len(), 0);
}

/// A named registry that answers requests for `part` so; gives the error of all that follows.
async fn through(
    part: &'static str,
    answer: impl Fn() -> Answer + Send + Sync + 'static,
) -> (String, ImageError) {
    let files = simple(10);
    let layer = Digest::of(&files.layers[0]).to_string();
    let part = if part == "LAYER" { layer } else { part.into() };
    let server = Server::start(move |asked| match asked.path.contains(&part) {
        true => answer(),
        false => as_registry(&files, asked),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let reference = format!("{}/a", server.host);
    let error = match images.resolve(&reference, &ANYONE, "").await {
        Ok(image) => read(&images, &image, 0).await.unwrap_err(),
        Err(error) => error,
    };
    (reference, error)
}

#[tokio::test]
async fn redirects_into_closed_ranges_are_not_followed() {
    let inside = Server::start(|_| Answer::new(200, "secret")).await;
    let targets = [
        format!("https://{}/", inside.host),
        format!("http://{}/", inside.host),
        "http://169.254.169.254/latest/meta-data/".into(),
        "https://169.254.169.254/".into(),
        "https://localhost/".into(),
        "http://example.com/".into(),
    ];
    for target in targets {
        for part in ["/manifests/", "/blobs/", "LAYER"] {
            let to = target.clone();
            let (reference, error) = through(part, move || Answer::redirect(to.clone())).await;
            check_closed(&error, &reference);
        }
    }
    assert_eq!(inside.asked().len(), 0);
}

#[tokio::test]
async fn token_services_in_closed_ranges_are_not_asked() {
    let inside = Server::start(|_| Answer::new(200, r#"{"token":"x"}"#)).await;
    for realm in [
        format!("http://{}/token", inside.host),
        format!("https://{}/token", inside.host),
        "https://10.0.0.1/token".into(),
    ] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        let answer = move || Answer::new(401, "").header("www-authenticate", challenge.clone());
        let (reference, error) = through("/manifests/", answer).await;
        check_closed(&error, &reference);
    }
    assert_eq!(inside.asked().len(), 0);
}

#[tokio::test]
async fn redirects_end() {
    let (_, error) = through("/manifests/", || Answer::redirect("/v2/a/manifests/latest")).await;
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn who_is_redirected_to_gets_no_authorization() {
    let files = simple(10);
    let (served, storage) = (files.clone(), Server::of(&files).await);
    let layer = Digest::of(&files.layers[0]).to_string();
    let (name, to) = (
        layer.clone(),
        format!("http://{}/blobs/{layer}", storage.host),
    );
    let server = Server::start(move |asked| {
        if asked.header("authorization").is_none() {
            return Answer::new(401, "").header("www-authenticate", "Basic realm=x");
        }
        match asked.path.ends_with(&name) {
            true => Answer::redirect(to.clone()),
            false => as_registry(&served, asked),
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host, &storage.host])).unwrap();
    let login = Credentials::Basic {
        username: "user".into(),
        password: "secret".into(),
    };
    let reference = format!("{}/a", server.host);
    let image = images.resolve(&reference, &login, "team").await.unwrap();
    read(&images, &image, 0).await.unwrap();
    assert_eq!(storage.count(&layer), 1);
    assert!(
        storage
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
    // The token service's answer is kept, so that it is not asked for each layer.
    let refused = server
        .asked()
        .iter()
        .filter(|a| a.header("authorization").is_none())
        .count();
    assert_eq!(refused, 1);
}
