//! Images in files.

use std::fs::File;
use std::io::Write as _;

use casemate_images::{
    Digest, Image, ImageError, Images, NewImage, NotAnArchive, PackedLayer, Platform,
};
use serde_json::{Value, json};

use crate::files::{
    Files, OCI_INDEX, OCI_MANIFEST, config, gzip, image, image_with, noise, read, simple, tar_of,
    unpacked, zstd,
};

/// Names and contents of an archive.
type Parts = Vec<(String, Vec<u8>)>;

fn blob(content: &[u8]) -> (String, Vec<u8>) {
    let digest = Digest::of(content).to_string();
    (digest.replace("sha256:", "blobs/sha256/"), content.into())
}

fn entry(kind: &str, content: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": Digest::of(content).to_string(), "size": content.len()})
}

fn index(entries: &[Value]) -> (String, Vec<u8>) {
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    ("index.json".into(), index.to_string().into())
}

/// With the index at the end, where some tools have it.
fn layout(files: &Files) -> Parts {
    let mut parts: Parts = files.blobs.values().map(|content| blob(content)).collect();
    parts.push(blob(&files.manifest));
    parts.push((
        "oci-layout".into(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.into(),
    ));
    parts.push(index(&[entry(OCI_MANIFEST, &files.manifest)]));
    parts
}

fn packed(parts: &Parts) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // As it is, also where no builder would take it.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, content.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn images() -> (tempfile::TempDir, Images) {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(config(dir.path(), &[])).unwrap();
    (dir, images)
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

async fn open(content: &[u8], wanted: Option<&str>) -> Result<Image, ImageError> {
    images().1.open_archive(file(content), wanted).await
}

async fn refused(parts: &Parts, wanted: Option<&str>) -> String {
    open(&packed(parts), wanted).await.unwrap_err().to_string()
}

#[tokio::test]
async fn all_layers_of_a_layout_are_read() {
    let plain = [
        tar_of("a", b"1"),
        tar_of("b", &noise(300_000)),
        tar_of("c", b"3"),
    ];
    let layers = [gzip(&plain[0]), zstd(&plain[1]), unpacked(&plain[2])];
    let files = image_with(&layers, |config| {
        config["config"] = json!({"User": "u", "WorkingDir": "/w", "Env": ["A= b ", "EMPTY="],
            "Labels": {"l": "x", "odd": 1}, "Cmd": null});
    });
    let (_dir, images) = images();
    let archive = file(&packed(&layout(&files)));
    let image = images.open_archive(archive, None).await.unwrap();
    assert_eq!(image.digest, Digest::of(&files.manifest));
    assert_eq!(image.env, [("A".to_owned(), "b".to_owned())]);
    let process = &image.process;
    assert_eq!(process.env, ["A= b ", "EMPTY="]);
    assert_eq!(
        (process.user.as_str(), process.workdir.as_str()),
        ("u", "/w")
    );
    assert_eq!(process.labels, [("l".to_owned(), "x".to_owned())].into());
    for (n, plain) in plain.iter().enumerate() {
        assert_eq!(read(&images, &image, n).await.unwrap(), *plain);
    }
    let missing = read(&images, &image, 3).await.unwrap_err();
    assert!(matches!(missing, ImageError::NoLayer { .. }), "{missing}");
}

#[tokio::test]
async fn one_of_several_images_is_named_or_fits() {
    let (one, other) = (simple(10), simple(20));
    let arm = image_with(&[gzip(&tar_of("x", b"x"))], |config| {
        config["architecture"] = "arm64".into();
    });
    let parts = |entries: &[Value]| {
        let all = [&one, &other, &arm].into_iter().flat_map(layout);
        let mut parts: Parts = all.filter(|(name, _)| name != "index.json").collect();
        parts.push(index(entries));
        parts
    };
    let named = |files: &Files, annotations: Value| {
        let mut entry = entry(OCI_MANIFEST, &files.manifest);
        entry["annotations"] = annotations;
        entry
    };
    let of = |files: &Files, architecture: &str| {
        let mut entry = entry(OCI_MANIFEST, &files.manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let two = parts(&[
        named(&one, json!({"org.opencontainers.image.ref.name": "v1"})),
        named(
            &other,
            json!({"org.opencontainers.image.ref.name": "v2",
            "io.containerd.image.name": "docker.io/library/x:2"}),
        ),
    ]);
    for (wanted, expected) in [("v1", &one), ("v2", &other), ("x:2", &other), ("2", &other)] {
        let found = open(&packed(&two), Some(wanted)).await.unwrap();
        assert_eq!(found.digest, Digest::of(&expected.manifest), "{wanted}");
    }
    let said = refused(&two, None).await;
    assert!(
        said.ends_with("name one of them, which are v1, v2"),
        "{said}"
    );
    let said = refused(&two, Some("v3")).await;
    assert!(
        said.ends_with("no image named 'v3': it holds v1, v2"),
        "{said}"
    );

    let both = parts(&[of(&arm, "arm64"), of(&one, "amd64")]);
    let found = open(&packed(&both), None).await.unwrap();
    assert_eq!(found.digest, Digest::of(&one.manifest));
    let wrong = "image architecture \"arm64\" does not match expected \"amd64\"";
    assert_eq!(refused(&parts(&[of(&arm, "arm64")]), None).await, wrong);
    // As Docker writes it: an index that names an index.
    let inner = index(&[of(&arm, "arm64"), of(&one, "amd64")]).1;
    let mut nested = parts(&[entry(OCI_INDEX, &inner)]);
    nested.push(blob(&inner));
    let found = open(&packed(&nested), None).await.unwrap();
    assert_eq!(found.digest, Digest::of(&one.manifest));
    let none = index(&[of(&arm, "arm64")]).1;
    let mut nested = parts(&[entry(OCI_INDEX, &none)]);
    nested.push(blob(&none));
    assert_eq!(refused(&nested, None).await, wrong);
    let said = refused(&parts(&[]), None).await;
    assert!(said.ends_with("it holds no image"), "{said}");
}

#[tokio::test]
async fn what_lies_is_refused() {
    let files = simple(1000);
    let whole = packed(&layout(&files));
    let check = |error: ImageError, expected: NotAnArchive| {
        assert!(
            matches!(&error, ImageError::Archive(why) if *why == expected),
            "{error}, not {expected}"
        );
    };
    for length in [512, 700, whole.len() / 2] {
        let error = open(&whole[..length], None).await.unwrap_err();
        check(error, NotAnArchive::CutOff);
    }
    for content in [&b""[..], b"x", &[b'x'; 2000]] {
        check(
            open(content, None).await.unwrap_err(),
            NotAnArchive::NotATar,
        );
    }
    let error = open(&gzip(&whole).packed, None).await.unwrap_err();
    check(error, NotAnArchive::Compressed);
    let error = open(&packed(&vec![("x".into(), vec![])]), None).await;
    check(error.unwrap_err(), NotAnArchive::NoIndex);
    for name in ["../index.json", "/etc/passwd", "blobs/../../x"] {
        let mut parts = layout(&files);
        parts.push((name.into(), b"x".into()));
        let error = open(&packed(&parts), None).await.unwrap_err();
        check(error, NotAnArchive::Name(name.into()));
    }
    let many = (0..20_001).map(|n| (n.to_string(), Vec::new())).collect();
    let error = open(&packed(&many), None).await.unwrap_err();
    check(error, NotAnArchive::Entries);

    // Contents that are not what their names say: of the manifest, the config and the layer.
    let (_dir, images) = images();
    for (at, (name, _)) in layout(&files).iter().enumerate() {
        let Some(digits) = name.strip_prefix("blobs/sha256/") else {
            continue;
        };
        let digest = Digest::parse(&format!("sha256:{digits}")).unwrap();
        let mut parts = layout(&files);
        parts[at].1[30] ^= 1;
        let wrong = NotAnArchive::WrongDigest(digest);
        match images.open_archive(file(&packed(&parts)), None).await {
            Err(error) => check(error, wrong),
            Ok(image) => check(read(&images, &image, 0).await.unwrap_err(), wrong),
        }
        parts[at].1.push(0);
        let error = open(&packed(&parts), None).await.unwrap_err();
        // Nothing says how long a config is.
        assert!(
            matches!(
                &error,
                ImageError::Archive(NotAnArchive::WrongSize { .. } | NotAnArchive::WrongDigest(_))
            ),
            "{error}"
        );
        parts.remove(at);
        let error = open(&packed(&parts), None).await.unwrap_err();
        check(error, NotAnArchive::NoBlob(digest));
    }
    for (name, content) in [
        ("index.json", vec![b' '; 5 << 20]),
        ("index.json", b"{}".to_vec()),
        ("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec()),
    ] {
        let mut parts = layout(&files);
        parts.retain(|(other, _)| other != name);
        parts.push((name.into(), content));
        let error = open(&packed(&parts), None).await.unwrap_err();
        assert!(matches!(error, ImageError::Archive(_)), "{error}");
    }
}

#[tokio::test]
async fn a_bomb_is_stopped_where_it_is_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), &[]);
    config.image_bytes_max = 1 << 20;
    let images = Images::open(config).unwrap();
    let bomb = image(&[gzip(&tar_of("x", &vec![0; 4 << 20]))]);
    let archive = file(&packed(&layout(&bomb)));
    let found = images.open_archive(archive, None).await.unwrap();
    let error = read(&images, &found, 0).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    let large = image(&[unpacked(&tar_of("x", &noise(2 << 20)))]);
    let archive = file(&packed(&layout(&large)));
    let error = images.open_archive(archive, None).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    // The manifest's claim of another content.
    let mut lying = simple(10);
    let other = image_with(&[gzip(&tar_of("noise", &noise(10)))], |config| {
        config["rootfs"]["diff_ids"][0] = Digest::of(b"else").to_string().into();
    });
    (lying.manifest, lying.blobs) = (other.manifest, other.blobs);
    let archive = file(&packed(&layout(&lying)));
    let found = images.open_archive(archive, None).await.unwrap();
    let error = read(&images, &found, 0).await.unwrap_err();
    assert!(matches!(error, ImageError::WrongContent { .. }), "{error}");
}

#[tokio::test]
async fn the_older_form_of_docker_is_read() {
    let plain = tar_of("a", &noise(1000));
    let files = image(&[unpacked(&plain)]);
    let config = files
        .blobs
        .values()
        .find(|content| content.starts_with(b"{"))
        .unwrap();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["mine:1"], "Layers": ["l/layer.tar"]}]);
    let parts = vec![
        ("l/layer.tar".into(), plain.clone()),
        ("c.json".into(), config.clone()),
        ("manifest.json".into(), manifest.to_string().into_bytes()),
    ];
    let (_dir, images) = images();
    for wanted in [
        None,
        Some("mine:1"),
        Some("docker.io/library/mine:1"),
        Some("1"),
    ] {
        let archive = file(&packed(&parts));
        let image = images.open_archive(archive, wanted).await.unwrap();
        assert_eq!(image.digest, Digest::of(config));
        assert_eq!(image.asked, "mine:1");
        assert_eq!(read(&images, &image, 0).await.unwrap(), plain);
    }
    let of = |tag: &str| json!({"Config": "c.json", "RepoTags": [tag], "Layers": ["l/layer.tar"]});
    let both = json!([of("mine:1"), of("yours:1")])
        .to_string()
        .into_bytes();
    let two: Parts = parts[..2]
        .iter()
        .cloned()
        .chain([("manifest.json".into(), both)])
        .collect();
    let said = refused(&two, Some("1")).await;
    assert!(said.ends_with("which are mine:1, yours:1"), "{said}");
    let said = refused(&parts, Some("mine:2")).await;
    assert!(
        said.ends_with("no image named 'mine:2': it holds mine:1"),
        "{said}"
    );
    let said = refused(&parts[1..].to_vec(), None).await;
    assert!(
        said.ends_with("it has no 'l/layer.tar', which its manifest names"),
        "{said}"
    );
}

/// Docker before 25 has a layer that is there already as a link.
#[tokio::test]
async fn a_layer_may_be_a_link_to_another_one() {
    let plain = tar_of("a", &noise(1000));
    let files = image(&[unpacked(&plain), unpacked(&plain)]);
    let is_config = |content: &&Vec<u8>| content.starts_with(b"{");
    let config = files.blobs.values().find(is_config).unwrap();
    let manifest = json!([{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    let archive = |target: &str| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut put = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content).unwrap();
        };
        put("a/layer.tar", &plain);
        put("c.json", config);
        put("manifest.json", manifest.to_string().as_bytes());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        let named = archive.append_link(&mut link, "b/layer.tar", target);
        named.unwrap();
        archive.into_inner().unwrap()
    };
    let (_dir, images) = images();
    let found = images.open_archive(file(&archive("../a/layer.tar")), None);
    let found = found.await.unwrap();
    for layer in 0..2 {
        assert_eq!(read(&images, &found, layer).await.unwrap(), plain);
    }
    for wrong in ["../../a/layer.tar", "/a/layer.tar", "layer.tar", "../c"] {
        let said = open(&archive(wrong), None).await.unwrap_err().to_string();
        assert!(
            said.ends_with("which its manifest names"),
            "{wrong}: {said}"
        );
    }
}

/// Thousands of names of one file are no image that anybody made.
#[tokio::test]
async fn an_image_in_the_older_form_has_as_many_layers_as_others() {
    let plain = tar_of("a", b"1");
    let layers = |count| vec!["l/layer.tar"; count];
    let parts = |count| {
        let diff_ids = vec![Digest::of(&plain).to_string(); count];
        let config = json!({"os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let manifest = json!([{"Config": "c.json", "Layers": layers(count)}]);
        vec![
            ("l/layer.tar".into(), plain.clone()),
            ("c.json".into(), config.to_string().into_bytes()),
            ("manifest.json".into(), manifest.to_string().into_bytes()),
        ]
    };
    let found = open(&packed(&parts(512)), None).await.unwrap();
    assert_eq!(found.layers.len(), 512);
    let said = refused(&parts(513), None).await;
    assert!(said.ends_with("it has more than 512 layers"), "{said}");
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    let plain = tar_of("a", &noise(1001));
    let layer = gzip(&plain).packed;
    let new = NewImage {
        title: "team/name:v1".into(),
        name: "v1".into(),
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
        created_by: "a test".into(),
        platform: Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
        },
        env: vec!["A=b".into(), "C= ".into()],
        user: "user".into(),
        workdir: String::new(),
        command: vec!["/bin/true".into()],
        labels: [("l".to_owned(), "{}".to_owned())].into(),
        layer: PackedLayer {
            digest: Digest::of(&layer),
            bytes: layer.len() as u64,
            diff_id: Digest::of(&plain),
        },
    };
    let (before, behind) = new.around_layer();
    let archive = [before, layer, behind].concat();
    assert_eq!(archive.len() % 512, 0);
    let (_dir, images) = images();
    for wanted in [None, Some("v1"), Some("team/name:v1")] {
        let found = images.open_archive(file(&archive), wanted).await;
        if wanted == Some("team/name:v1") {
            assert!(found.is_err());
            continue;
        }
        let found = found.unwrap();
        assert_eq!(found.process.env, new.env);
        assert_eq!(
            (found.process.user, found.process.workdir),
            (new.user.clone(), String::new())
        );
        assert_eq!(found.process.labels, new.labels);
    }
    let found = images.open_archive(file(&archive), None).await.unwrap();
    assert_eq!(read(&images, &found, 0).await.unwrap(), plain);
    // Another reader finds the same names.
    let mut others = tar::Archive::new(archive.as_slice());
    let names = others.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        entry.path().unwrap().to_string_lossy().into_owned()
    });
    let names: Vec<_> = names.collect();
    assert_eq!(names[..2], ["oci-layout", "index.json"]);
    assert_eq!(names.len(), 5);
}
