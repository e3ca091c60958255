//! Registries that lie.

use casemate_images::{Credentials, Digest, ImageError, Images};
use serde_json::json;

use crate::files::{Files, config, gzip, image, image_with, read, simple, tar_of, zstd};
use crate::server::{Answer, Server, as_registry};

const ANYONE: Credentials = Credentials::Anonymous;

#[tokio::test]
async fn manifests_and_configs_must_have_their_digests() {
    let files = simple(10);
    let other = simple(11);
    let wrong = other.clone();
    let server = Server::start(move |asked| match asked.path.contains("/manifests/") {
        true => Answer::new(200, wrong.manifest.clone()),
        false => Answer::new(200, "{}"),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let digest = Digest::of(&files.manifest);
    let reference = format!("{}/a@{digest}", server.host);
    let error = images.resolve(&reference, &ANYONE, "").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to pull image '{reference}': what the registry sent is not {digest}")
    );
    let reference = format!("{}/a", server.host);
    let error = images.resolve(&reference, &ANYONE, "").await.unwrap_err();
    assert!(matches!(error, ImageError::WrongDigest { .. }), "{error}");
}

/// The error of reading the first layer, and how often it was asked for.
async fn layer_error(
    files: Files,
    change: impl Fn(Answer) -> Answer + Send + Sync + 'static,
) -> (ImageError, usize) {
    let layer = Digest::of(&files.layers[0]).to_string();
    let name = layer.clone();
    let server = Server::start(move |asked| match asked.path.ends_with(&name) {
        true => change(as_registry(&files, asked)),
        false => as_registry(&files, asked),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&server.host]);
    config.image_bytes_max = 8 << 20;
    let images = Images::open(config).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    let error = read(&images, &image, 0).await.unwrap_err();
    (error, server.count(&layer))
}

#[tokio::test]
async fn layers_must_have_their_digests() {
    let spoil = |mut answer: Answer| {
        answer.body[100] ^= 1;
        answer
    };
    let (error, asked) = layer_error(simple(5000), spoil).await;
    assert!(matches!(error, ImageError::WrongDigest { .. }), "{error}");
    assert_eq!(asked, 1, "it is not asked for again");
}

#[tokio::test]
async fn layers_must_not_be_longer() {
    let lengthen = |mut answer: Answer| {
        answer.body.extend([0; 10]);
        answer.sent = answer.body.len();
        answer
    };
    let (error, asked) = layer_error(simple(5000), lengthen).await;
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn layers_that_stay_short_end() {
    let shorten = |answer: Answer| answer.cut_after(10).unsized_();
    let (error, asked) = layer_error(simple(5000), shorten).await;
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn stalls_in_layers_end_in_time() {
    let (error, asked) = layer_error(simple(5000), |answer| answer.stalls_after(10)).await;
    assert!(matches!(error, ImageError::Stalled { .. }), "{error}");
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_part_that_does_not_fit_is_not_taken() {
    let partial = |answer: Answer| Answer {
        status: 206,
        ..answer.header("content-range", "bytes 7-9/10")
    };
    let (error, asked) = layer_error(simple(5000), partial).await;
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn bombs_are_stopped() {
    let zeros = vec![0; 200 << 20];
    for layer in [gzip(&zeros), zstd(&zeros)] {
        let (error, _) = layer_error(image(&[layer]), |answer| answer).await;
        // As far as the reader's buffer went.
        let stopped = 8 << 20..64 << 20;
        match error {
            ImageError::TooLarge { bytes, .. } if stopped.contains(&bytes) => {}
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn layers_of_an_image_count_together() {
    let files = image(&[gzip(&vec![0; 5 << 20]), zstd(&vec![1; 5 << 20])]);
    let server = Server::of(&files).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&server.host]);
    config.image_bytes_max = 8 << 20;
    let images = Images::open(config).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            read(&images, &image, 0).await.unwrap().len(),
            5 << 20,
            "again and again"
        );
    }
    let error = read(&images, &image, 1).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    // Another image, though of the same blobs.
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    assert_eq!(read(&images, &image, 1).await.unwrap().len(), 5 << 20);
}

#[tokio::test]
async fn contents_must_be_what_the_config_says() {
    let files = image_with(&[gzip(&tar_of("x", b"x"))], |config| {
        config["rootfs"]["diff_ids"][0] = json!(Digest::of(b"other").to_string());
    });
    let (error, _) = layer_error(files, |answer| answer).await;
    assert!(matches!(error, ImageError::WrongContent { .. }), "{error}");
}

#[tokio::test]
async fn contents_that_cannot_be_unpacked_are_refused() {
    let mut layer = gzip(&tar_of("x", &crate::files::noise(5000)));
    layer.packed.truncate(1000);
    let (error, _) = layer_error(image(&[layer]), |answer| answer).await;
    assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn what_follows_a_tar_is_checked_too() {
    use std::io::Read as _;
    let files = image_with(&[gzip(&tar_of("x", b"x"))], |config| {
        config["rootfs"]["diff_ids"][0] = json!(Digest::of(b"other").to_string());
    });
    let server = Server::of(&files).await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    let mut reader = images.layer(&image, 0, |_| {}).await.unwrap();
    let mut begin = [0; 100];
    reader.read_exact(&mut begin).unwrap();
    let error = reader.finish().unwrap_err();
    assert!(matches!(error, ImageError::WrongContent { .. }), "{error}");
    let missing = images.layer(&image, 1, |_| {}).await.err();
    assert!(matches!(
        missing,
        Some(ImageError::NoLayer { index: 1, .. })
    ));
}
