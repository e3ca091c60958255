//! Downloads that break off, are shared, or are had elsewhere.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use casemate_images::{Compression, Credentials, Digest, Image, Images, Progress};

use crate::files::{config, gzip, image, noise, read, read_all, simple, tar_of, unpacked, zstd};
use crate::server::{Answer, Server, as_registry};

const ANYONE: Credentials = Credentials::Anonymous;

#[tokio::test]
async fn every_packing_is_read() {
    let tars = ["a", "b", "c"].map(|name| tar_of(name, &noise(300_000)));
    let files = image(&[gzip(&tars[0]), zstd(&tars[1]), unpacked(&tars[2])]);
    let server = Server::of(&files).await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let reference = format!("{}/some/thing:1", server.host);
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    assert_eq!((&image.asked, &image.answered), (&reference, &reference));
    assert_eq!(image.digest, Digest::of(&files.manifest));
    assert_eq!(image.env, [("PATH".to_string(), "/usr/bin".to_string())]);
    let packings = [Compression::Gzip, Compression::Zstd, Compression::None];
    let packed: usize = files.layers.iter().map(Vec::len).sum();
    assert_eq!(image.compressed_bytes, packed as u64);
    for (n, tar) in tars.iter().enumerate() {
        assert_eq!(image.layers[n].compression, packings[n]);
        assert_eq!(image.layers[n].diff_id, Digest::of(tar));
        assert!(&read(&images, &image, n).await.unwrap() == tar);
        assert!(
            &read(&images, &image, n).await.unwrap() == tar,
            "from the cache"
        );
    }
    assert_eq!(server.count("/blobs/"), 4, "each layer and the config once");
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on() {
    let files = simple(3_000_000);
    let (layer, length) = (
        Digest::of(&files.layers[0]).to_string(),
        files.layers[0].len(),
    );
    let name = layer.clone();
    let served = files.clone();
    let server = Server::start(move |asked| {
        let answer = as_registry(&served, asked);
        match asked.path.ends_with(&name) && asked.from() == 0 {
            true => answer.cut_after(1_500_000),
            false => answer,
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    let told = Arc::new(Mutex::new(Vec::<Progress>::new()));
    let seen = Arc::clone(&told);
    let progress = move |progress| seen.lock().unwrap().push(progress);
    let reader = images.layer(&image, 0, progress).await.unwrap();
    assert_eq!(
        read_all(reader).await.unwrap(),
        tar_of("noise", &noise(3_000_000))
    );
    let asked = server.asked();
    let froms = asked.iter().filter(|asked| asked.path.ends_with(&layer));
    assert_eq!(
        froms.map(|asked| asked.from()).collect::<Vec<_>>(),
        [0, 1_500_000]
    );
    let told = told.lock().unwrap();
    assert!(told.is_sorted_by_key(|progress| progress.received));
    let whole = length as u64;
    assert_eq!(
        told.last(),
        Some(&Progress {
            received: whole,
            total: whole
        })
    );
}

/// Leaves half a layer behind, then fetches it by a new process, so to speak.
async fn resumed(
    change: impl Fn(Answer) -> Answer + Send + Sync + 'static,
    spoil: bool,
) -> Vec<usize> {
    let files = simple(3_000_000);
    let layer = Digest::of(&files.layers[0]).to_string();
    let name = layer.clone();
    let tries = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let answer = as_registry(&files, asked);
        match asked.path.ends_with(&name) {
            true if tries.fetch_add(1, Ordering::SeqCst) == 0 => answer.cut_after(1_500_000),
            true => change(answer),
            false => answer,
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&server.host]);
    config.patience.retries = 0;
    let reference = format!("{}/a", server.host);
    let images = Images::open(config.clone()).unwrap();
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    read(&images, &image, 0).await.unwrap_err();
    drop(images);
    if spoil {
        let partial = std::fs::read_dir(dir.path().join("cache/partial")).unwrap();
        let path = partial.last().unwrap().unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        content[1000..2000].fill(0);
        std::fs::write(&path, content).unwrap();
    }
    let images = Images::open(config).unwrap();
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    assert_eq!(
        read(&images, &image, 0).await.unwrap(),
        tar_of("noise", &noise(3_000_000))
    );
    let asked = server.asked();
    let of_layer = asked.iter().filter(|asked| asked.path.ends_with(&layer));
    of_layer.map(|asked| asked.from()).collect()
}

#[tokio::test]
async fn what_a_process_left_is_gone_on_with() {
    assert_eq!(resumed(|answer| answer, false).await, [0, 1_500_000]);
}

#[tokio::test]
async fn what_was_left_spoiled_is_fetched_again() {
    assert_eq!(resumed(|answer| answer, true).await, [0, 1_500_000, 0]);
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_for_the_whole() {
    let refuse = |answer: Answer| match answer.status {
        206 => Answer::new(416, ""),
        _ => answer,
    };
    assert_eq!(resumed(refuse, false).await, [0, 1_500_000, 0]);
    let misread = |answer: Answer| match answer.status {
        206 => Answer::new(206, answer.body).header("content-range", "bytes 5-9/10"),
        _ => answer,
    };
    assert_eq!(resumed(misread, false).await, [0, 1_500_000, 0]);
}

#[tokio::test]
async fn two_who_want_a_layer_share_a_download() {
    let files = simple(2_000_000);
    let layer = Digest::of(&files.layers[0]).to_string();
    let server = Server::of(&files).await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[&server.host])).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    let (a, b) = tokio::join!(read(&images, &image, 0), read(&images, &image, 0));
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(server.count(&layer), 1);
}

/// A registry whose first answer with a layer stalls behind 1 200 000 of its bytes, and an image of it.
async fn stalling_once(dir: &std::path::Path) -> (Server, Images, Image, String) {
    let files = simple(2_000_000);
    let layer = Digest::of(&files.layers[0]).to_string();
    let (name, tries) = (layer.clone(), AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        let answer = as_registry(&files, asked);
        match asked.path.ends_with(&name) && tries.fetch_add(1, Ordering::SeqCst) == 0 {
            true => answer.stalls_after(1_200_000),
            false => answer,
        }
    })
    .await;
    let mut config = config(dir, &[&server.host]);
    config.patience.stall = std::time::Duration::from_secs(60);
    let images = Images::open(config).unwrap();
    let reference = format!("{}/a", server.host);
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    (server, images, image, layer)
}

#[tokio::test]
async fn nobody_waits_for_one_whose_manifest_lies_about_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, images, image, _) = stalling_once(dir.path()).await;
    let mut lying = image.clone();
    lying.layers[0].compressed_bytes -= 1;
    let (came, mut comes) = tokio::sync::mpsc::unbounded_channel();
    let told = move |progress: Progress| {
        let _ = came.send(progress.received);
    };
    let honest = async {
        while comes.recv().await.is_some_and(|had| had < 1_200_000) {}
        tokio::time::timeout(std::time::Duration::from_secs(20), read(&images, &image, 0)).await
    };
    tokio::select! {
        _ = images.layer(&lying, 0, told) => panic!("it cannot come to an end"),
        had = honest => {
            let tar = had.expect("it does not wait for the other").unwrap();
            assert_eq!(tar, tar_of("noise", &noise(2_000_000)));
        }
    }
}

#[tokio::test]
async fn a_download_ends_with_the_last_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (server, images, image, layer) = stalling_once(dir.path()).await;
    let (came, mut comes) = tokio::sync::mpsc::unbounded_channel();
    let first = images.layer(&image, 0, move |progress| {
        let _ = came.send(progress.received);
    });
    let half = async {
        while comes
            .recv()
            .await
            .is_some_and(|received| received < 1_200_000)
        {}
    };
    tokio::select! {
        _ = first => panic!("it cannot come to an end"),
        () = half => {}
    }
    let tar = read(&images, &image, 0).await.unwrap();
    assert_eq!(tar, tar_of("noise", &noise(2_000_000)));
    assert_eq!(server.count(&layer), 2, "the first was given up");
}

#[tokio::test]
async fn mirrors_are_asked_first_and_get_no_credentials() {
    let files = simple(10);
    let (registry, mirror) = (Server::of(&files).await, Server::of(&files).await);
    let other = simple(11);
    let wanting = Server::start(move |asked| match asked.path.contains("/blobs/") {
        true => as_registry(&other, asked),
        false => Answer::error(404, "NAME_UNKNOWN"),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&registry.host]);
    let entry = config.registries.get_mut(&registry.host).unwrap();
    let mirrors = [
        format!("http://{}", wanting.host),
        format!("http://{}/hub", mirror.host),
    ];
    entry.mirrors = mirrors.iter().map(|text| text.parse().unwrap()).collect();
    let images = Images::open(config.clone()).unwrap();
    let reference = format!("{}/a/b:c", registry.host);

    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    assert_eq!(image.answered, format!("{}/hub/a/b:c", mirror.host));
    read(&images, &image, 0).await.unwrap();
    assert_eq!(registry.asked().len(), 0);
    assert_eq!(wanting.count("/blobs/"), 0, "who answered is asked on");

    let login = Credentials::Basic {
        username: "u".into(),
        password: "p".into(),
    };
    let before = mirror.asked().len();
    let image = images.resolve(&reference, &login, "team").await.unwrap();
    assert_eq!(image.answered, reference);
    assert_eq!(
        mirror.asked().len(),
        before,
        "with credentials none but the registry"
    );

    config.registries.get_mut(&registry.host).unwrap().fallback = false;
    let images = Images::open(config).unwrap();
    let before = registry.asked().len();
    let image = images.resolve(&reference, &login, "team").await.unwrap();
    assert_eq!(image.answered, format!("{}/hub/a/b:c", mirror.host));
    assert_eq!(registry.asked().len(), before);
    assert!(
        mirror
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
}

#[tokio::test]
async fn a_registry_stands_in_for_a_mirror_that_loses_a_layer() {
    let files = simple(10);
    let registry = Server::of(&files).await;
    let (layer, served) = (Digest::of(&files.layers[0]).to_string(), files.clone());
    let mirror = Server::start(move |asked| match asked.path.ends_with(&layer) {
        true => Answer::new(500, ""),
        false => as_registry(&served, asked),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&registry.host]);
    let entry = config.registries.get_mut(&registry.host).unwrap();
    entry.mirrors = vec![format!("http://{}", mirror.host).parse().unwrap()];
    let images = Images::open(config).unwrap();
    let reference = format!("{}/a", registry.host);
    let image = images.resolve(&reference, &ANYONE, "").await.unwrap();
    assert!(image.answered.starts_with(&mirror.host));
    read(&images, &image, 0).await.unwrap();
    assert_eq!(registry.asked().len(), 1);
}

#[tokio::test]
async fn an_alias_stands_for_a_whole_reference() {
    let server = Server::of(&simple(10)).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[&server.host]);
    let target = format!("{}/mine/ubuntu:22.04", server.host);
    config.aliases.insert("ubuntu:22.04".into(), target.clone());
    let images = Images::open(config).unwrap();
    let login = Credentials::Basic {
        username: "u".into(),
        password: "p".into(),
    };
    let reference = "docker.io/library/ubuntu:22.04";
    let image = images.resolve(reference, &login, "team").await.unwrap();
    assert_eq!((image.asked.as_str(), image.answered), (reference, target));
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
}
