//! What is kept, for whom, and how much of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use casemate_images::{Credentials, Digest, ImageError, Images};

use crate::files::{config, gzip, image, noise, read, simple, tar_of, unpacked};
use crate::server::{Answer, Server, as_registry};

fn login(password: &str) -> Credentials {
    Credentials::Basic {
        username: "user".into(),
        password: password.into(),
    }
}

/// All files below a folder.
fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_in(&path)),
            false => found.push(path),
        }
    }
    found
}

#[tokio::test]
async fn layers_had_with_credentials_are_for_their_scope_alone() {
    let files = simple(1000);
    let layer = Digest::of(&files.layers[0]).to_string();
    let (served, name) = (files.clone(), layer.clone());
    // Everyone gets the manifest, but of layers only who may.
    let server = Server::start(move |asked| match asked.path.ends_with(&name) {
        true if asked.header("authorization").is_none() => {
            Answer::error(401, "UNAUTHORIZED").header("www-authenticate", "Basic realm=x")
        }
        _ => as_registry(&served, asked),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let reference = format!("{}/a", server.host);
    let get = async |credentials: &Credentials, scope: &str| {
        let image = images.resolve(&reference, credentials, scope).await?;
        read(&images, &image, 0).await
    };
    get(&login("right"), "one").await.unwrap();
    let fetched = server.count(&layer);
    get(&login("right"), "one").await.unwrap();
    assert_eq!(server.count(&layer), fetched, "the same team has it");
    let error = get(&Credentials::Anonymous, "one").await.unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    get(&login("right"), "other").await.unwrap();
    assert!(server.count(&layer) > fetched + 1, "another team has not");

    // Nor has another registry that names the digest.
    let liar = files.clone();
    let server = Server::start(move |asked| match asked.path.ends_with(&layer) {
        true => Answer::error(404, "BLOB_UNKNOWN"),
        false => as_registry(&liar, asked),
    })
    .await;
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images
        .resolve(&reference, &login("any"), "one")
        .await
        .unwrap();
    let error = read(&images, &image, 0).await.unwrap_err();
    assert!(
        matches!(error, ImageError::Status { status: 404, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn the_cache_stays_within_its_bounds() {
    let layers: Vec<_> = (0..4u8)
        .map(|n| unpacked(&tar_of(&n.to_string(), &noise(100_000))))
        .collect();
    let size = layers[0].packed.len() as u64;
    let server = Server::of(&image(&layers)).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&server.host]);
    config.cache_bytes_max = size * 5 / 2;
    let images = Images::open(config.clone()).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images
        .resolve(&reference, &Credentials::Anonymous, "")
        .await
        .unwrap();
    let here = |n: usize| {
        let name = image.layers[n].digest.to_string()[7..].to_string();
        files_in(&dir.path().join("cache"))
            .iter()
            .any(|path| path.ends_with(&name))
    };
    read(&images, &image, 0).await.unwrap();
    read(&images, &image, 1).await.unwrap();
    read(&images, &image, 0).await.unwrap();
    let held = images.layer(&image, 2, |_| {}).await.unwrap();
    assert_eq!(
        [0, 1, 2].map(here),
        [true, false, true],
        "the least lately used goes"
    );
    let other = images.layer(&image, 0, |_| {}).await.unwrap();
    let error = images.layer(&image, 3, |_| {}).await.err();
    assert!(
        matches!(error, Some(ImageError::CacheFull { .. })),
        "{error:?}"
    );
    drop(other);
    read(&images, &image, 3).await.unwrap();
    assert_eq!(
        [0, 1, 2, 3].map(here),
        [false, false, true, true],
        "what is read stays"
    );
    assert_eq!(held.finish().unwrap(), size);
    drop(images);

    config.cache_bytes_max = size;
    let images = Images::open(config).unwrap();
    assert_eq!(
        [2, 3].map(here),
        [false, true],
        "a smaller cache is smaller at once"
    );
    drop(images);
}

#[tokio::test]
async fn partial_layers_give_way() {
    let files = image(&[
        unpacked(&tar_of("a", &noise(3_000_000))),
        gzip(&noise(2_000_000)),
    ]);
    let (served, first) = (files.clone(), Digest::of(&files.layers[0]).to_string());
    let server = Server::start(move |asked| match asked.path.ends_with(&first) {
        true => as_registry(&served, asked).cut_after(1_500_000),
        false => as_registry(&served, asked),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&server.host]);
    config.patience.retries = 0;
    config.cache_bytes_max = 3_100_000;
    let images = Images::open(config).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images
        .resolve(&reference, &Credentials::Anonymous, "")
        .await
        .unwrap();
    read(&images, &image, 0).await.unwrap_err();
    let partials = dir.path().join("cache/partial");
    assert_eq!(files_in(&partials).len(), 1);
    read(&images, &image, 1).await.unwrap();
    assert_eq!(files_in(&partials).len(), 0);
}

#[tokio::test]
async fn what_is_too_large_for_the_cache_is_refused() {
    let server = Server::of(&simple(100_000)).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&server.host]);
    config.cache_bytes_max = 1000;
    let images = Images::open(config).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images
        .resolve(&reference, &Credentials::Anonymous, "")
        .await
        .unwrap();
    let error = read(&images, &image, 0).await.unwrap_err();
    assert!(
        error.to_string().starts_with("no room for a layer of 100."),
        "{error}"
    );
}

#[tokio::test]
async fn a_removed_file_is_fetched_again() {
    let server = Server::of(&simple(1000)).await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images
        .resolve(&reference, &Credentials::Anonymous, "")
        .await
        .unwrap();
    read(&images, &image, 0).await.unwrap();
    for path in files_in(&dir.path().join("cache/blobs")) {
        fs::remove_file(path).unwrap();
    }
    read(&images, &image, 0).await.unwrap();
}

#[test]
fn leftovers_are_swept_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let name = "0".repeat(64);
    let outside = dir.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("kept"), "").unwrap();
    let write = |path: &str, age: Duration| {
        let path = cache.join(path.replace("NAME", &name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let (new, old) = (Duration::ZERO, Duration::from_secs(25 * 3600));
    let kept = [
        write("blobs/NAME/NAME", old),
        write("partial/NAME-NAME", new),
        write("mine", old),
    ];
    let swept = [
        write("blobs/foreign", new),
        write("blobs/foreigners/x", new),
        write("blobs/NAME/NAME.tmp", new),
        write("partial/NAME", new),
        write(&format!("partial/{}-NAME", "1".repeat(64)), old),
        write("partial/NAME-NAME-0011223344556677", new),
    ];
    let locked_path = write(&format!("partial/{}-NAME", "2".repeat(64)), old);
    let locked = fs::File::open(&locked_path).unwrap();
    locked.lock().unwrap();
    let link = cache.join("blobs").join("1".repeat(64));
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    Images::open(config(dir.path(), &[])).unwrap();
    assert!(
        kept.iter().all(|path| path.exists()),
        "{:?}",
        files_in(&cache)
    );
    assert!(
        !swept.iter().any(|path| path.exists()),
        "{:?}",
        files_in(&cache)
    );
    assert!(locked_path.exists(), "another process writes to it");
    assert!(!link.is_symlink() && outside.join("kept").exists());
}
