//! What users read when an image is not had: upstream's texts.

use casemate_images::{Credentials, Digest, ImageError, Images};
use serde_json::json;

use crate::files::{OCI_INDEX, config, gzip, image_with, simple, tar_of};
use crate::server::{Answer, Server, as_registry};

/// Resolves `HOST/a/b:c` at a server that always answers so, and gives the error and the requests.
async fn failure(
    answer: impl Fn() -> Answer + Send + Sync + 'static,
) -> (String, ImageError, usize) {
    let server = Server::start(move |_| answer()).await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let reference = format!("{}/a/b:c", server.host);
    let resolved = images
        .resolve(&reference, &Credentials::Anonymous, "")
        .await;
    (reference, resolved.unwrap_err(), server.asked().len())
}

#[track_caller]
fn check((reference, error, asked): (String, ImageError, usize), text: &str, requests: usize) {
    assert_eq!(error.to_string(), text.replace("<r>", &reference));
    assert_eq!(asked, requests);
}

#[tokio::test]
async fn a_wrong_reference_is_refused_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[])).unwrap();
    let resolved = images.resolve("A B", &Credentials::Anonymous, "").await;
    assert_eq!(
        resolved.unwrap_err().to_string(),
        "invalid image reference 'A B': its repository must be lowercase"
    );
}

#[tokio::test]
async fn answers_of_registries_have_upstreams_texts() {
    check(
        failure(|| Answer::error(404, "MANIFEST_UNKNOWN")).await,
        "image '<r>' not found: the image or tag does not exist in the registry",
        1,
    );
    check(
        failure(|| Answer::error(404, "NAME_UNKNOWN")).await,
        "repository '<r>' not found: verify the image name is correct",
        1,
    );
    check(
        failure(|| Answer::error(401, "UNAUTHORIZED")).await,
        "access denied to '<r>': authentication required or insufficient permissions",
        1,
    );
    check(
        failure(|| Answer::error(403, "DENIED")).await,
        "access denied to '<r>': you don't have permission to pull this image",
        1,
    );
    check(
        failure(|| Answer::new(403, "<html>")).await,
        "access denied to '<r>': you don't have permission to pull this image",
        1,
    );
    check(
        failure(|| Answer::new(418, "")).await,
        "failed to pull image '<r>': registry returned status code 418",
        1,
    );
}

#[tokio::test]
async fn what_may_pass_is_asked_for_again() {
    check(
        failure(|| Answer::new(500, "")).await,
        "failed to pull image '<r>': registry returned status code 500",
        3,
    );
    check(
        failure(|| Answer::error(429, "TOOMANYREQUESTS")).await,
        "failed to pull image '<r>': registry returned status code 429",
        3,
    );
    check(
        failure(|| Answer::new(200, "{}").cut_after(1)).await,
        "failed to pull image '<r>': unable to retrieve image from registry",
        3,
    );
}

#[tokio::test]
async fn a_registry_that_recovers_is_used() {
    let files = simple(10);
    let broken = std::sync::atomic::AtomicUsize::new(2);
    let server = Server::start(move |asked| {
        let ordering = std::sync::atomic::Ordering::SeqCst;
        let left = broken.fetch_update(ordering, ordering, |n| n.checked_sub(1));
        match left {
            Ok(_) => Answer::new(503, ""),
            Err(_) => as_registry(&files, asked),
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images
        .resolve(&reference, &Credentials::Anonymous, "")
        .await;
    assert_eq!(image.unwrap().layers.len(), 1);
}

#[tokio::test]
async fn a_stall_ends_in_time() {
    let (reference, error, asked) = failure(|| Answer::new(200, "{}").stalls_after(1)).await;
    assert_eq!(
        error.to_string(),
        format!("failed to pull image '{reference}': the registry sent nothing for 1 s")
    );
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn documents_are_bounded() {
    let huge = || Answer::new(200, vec![b' '; 5 << 20]);
    check(
        failure(huge).await,
        "failed to pull image '<r>': unable to retrieve image from registry",
        1,
    );
    check(
        failure(|| Answer::new(200, vec![b' '; 5 << 20]).unsized_()).await,
        "failed to pull image '<r>': unable to retrieve image from registry",
        1,
    );
    // A head without end, and an error whose text is one.
    check(
        failure(|| Answer::new(200, "{}").header("x", "y".repeat(200_000))).await,
        "failed to pull image '<r>': unable to retrieve image from registry",
        3,
    );
    check(
        failure(|| Answer::new(404, vec![b'x'; 1 << 20])).await,
        "failed to pull image '<r>': registry returned status code 404",
        1,
    );
}

#[tokio::test]
async fn other_kinds_of_manifests_are_refused() {
    check(
        failure(|| Answer::new(200, r#"{"schemaVersion": 1, "fsLayers": []}"#)).await,
        "image '<r>' cannot be used: its manifest is of schema 1, and only schema 2 can be used",
        1,
    );
    check(
        failure(|| Answer::new(200, "<html>")).await,
        "image '<r>' cannot be used: its manifest cannot be read",
        1,
    );
}

#[tokio::test]
async fn other_platforms_are_refused() {
    let files = image_with(&[gzip(&tar_of("x", b"x"))], |config| {
        config["architecture"] = json!("arm64");
    });
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{
        "digest": Digest::of(&files.manifest).to_string(), "size": files.manifest.len(),
        "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}]});
    let index = index.to_string();
    let server = Server::start(
        move |asked| match asked.path.ends_with("/manifests/index") {
            true => Answer::new(200, index.clone()),
            false => as_registry(&files, asked),
        },
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    for tag in ["single", "index"] {
        let reference = format!("{}/a:{tag}", server.host);
        let resolved = images
            .resolve(&reference, &Credentials::Anonymous, "")
            .await;
        assert_eq!(
            resolved.unwrap_err().to_string(),
            "image architecture \"arm64\" does not match expected \"amd64\""
        );
    }
}

#[tokio::test]
async fn an_image_that_cannot_fit_is_refused_unread() {
    let server = Server::of(&simple(5000)).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&server.host]);
    config.image_bytes_max = 1000;
    let images = Images::open(config).unwrap();
    let reference = format!("{}/a", server.host);
    let resolved = images
        .resolve(&reference, &Credentials::Anonymous, "")
        .await;
    let text = resolved.unwrap_err().to_string();
    let begin = "the uncompressed Docker image size (5.";
    let end =
        " kB) exceeds the maximum filesystem size (1.0 kB). Please reduce your Docker image size";
    assert!(text.starts_with(begin) && text.contains(end), "{text}");
}
