//! The base from outside: importing, keeping, exporting, failing.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use casemate_build::archive::{Compression, pack};
use casemate_build::base::{self, BaseConfig, BaseError, BaseManifest, BaseSource};
use casemate_build::{Progress, Silent};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, import: Option<PathBuf>) -> BaseConfig {
        BaseConfig {
            layers_dir: self.path("layers"),
            templates_dir: self.path("templates"),
            logs_dir: self.path("logs"),
            import,
            host_root: self.path("host"),
        }
    }

    /// A foreign archive: a root file system that fits, with one file of its own.
    fn archive(&self, name: &str, mark: &str) -> PathBuf {
        let root = self.path(&format!("root-{name}"));
        for dir in ["bin", "etc", "home/user"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(root.join("bin/sh"), "").unwrap();
        fs::write(root.join("bin/bash"), "").unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/bash\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(root.join("mark"), mark).unwrap();
        let file = self.path(&format!("{name}.tar"));
        pack(
            &root,
            b"{}",
            File::create(&file).unwrap(),
            Compression::None,
        )
        .unwrap();
        cut_header(&file);
        file
    }

    fn mark(&self, manifest: &BaseManifest) -> String {
        let layer = self.path("layers").join(&manifest.layers[0]);
        fs::read_to_string(layer.join("mark")).unwrap()
    }
}

/// Takes our header (one block of name, one of content) off an archive, as others make them.
fn cut_header(file: &Path) {
    let whole = fs::read(file).unwrap();
    fs::write(file, &whole[1024..]).unwrap();
}

fn layers(place: &Place) -> BTreeSet<String> {
    let names = fs::read_dir(place.path("layers")).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn an_imported_base_is_kept_and_not_imported_again() {
    let place = Place::new();
    let file = place.archive("one", "1");
    let first = base::ensure(&place.config(Some(file.clone())), &Silent).unwrap();
    assert_eq!((first.user.uid, first.user.gid), (1000, 1001));
    assert_eq!(first.workdir, "/home/user");
    assert!(matches!(first.source, BaseSource::Archive { .. }));
    assert_eq!(
        base::ensure(&place.config(Some(file)), &Silent).unwrap(),
        first
    );
    assert_eq!(base::ensure(&place.config(None), &Silent).unwrap(), first);
    assert_eq!(layers(&place).len(), 1);
}

#[test]
fn another_archive_replaces_the_base_and_keeps_its_id() {
    let place = Place::new();
    let first = base::ensure(&place.config(Some(place.archive("one", "1"))), &Silent).unwrap();
    let config = place.config(Some(place.archive("two", "no 2")));
    let second = base::ensure(&config, &Silent).unwrap();
    assert_eq!(first.template_id, second.template_id);
    assert_ne!(first.build_id, second.build_id);
    assert_eq!(
        (place.mark(&first), place.mark(&second)),
        ("1".into(), "no 2".into())
    );

    let running = BTreeSet::from_iter(first.layers.clone());
    assert!(base::sweep(&config, &running).unwrap().is_empty());
    assert_eq!(
        base::sweep(&config, &BTreeSet::new()).unwrap(),
        first.layers
    );
    assert_eq!(layers(&place), BTreeSet::from_iter(second.layers));
}

#[test]
fn an_export_carries_its_identity_to_another_place() {
    let (here, there) = (Place::new(), Place::new());
    let config = here.config(Some(here.archive("one", "1")));
    let made = base::ensure(&config, &Silent).unwrap();
    for name in ["base.tar", "base.tar.gz", "base.tar.zst"] {
        let file = here.path(name);
        base::export(&config, &file).unwrap();
        let imported = base::ensure(&there.config(Some(file)), &Silent).unwrap();
        assert_eq!(imported.build_id, made.build_id);
        assert_eq!(imported.template_id, made.template_id);
        assert_eq!(imported.layers, made.layers);
        assert_eq!(there.mark(&imported), "1");
    }
    assert_eq!(layers(&there).len(), 1);
    assert!(matches!(
        base::export(&there.config(None), Path::new("/nowhere/x.tar")),
        Err(BaseError::Io { .. })
    ));
}

#[test]
fn an_export_says_by_its_name_what_it_is() {
    let place = Place::new();
    let config = place.config(Some(place.archive("one", "1")));
    base::ensure(&config, &Silent).unwrap();
    for name in ["x.zip", "x.gz", "x", "x.tar.xz"] {
        let file = place.path(name);
        let refused = base::export(&config, &file).unwrap_err();
        assert!(
            refused.to_string().contains("must end in .tar"),
            "{refused}"
        );
        assert!(!file.exists());
    }
}

#[test]
fn a_bad_archive_leaves_the_old_base_and_nothing_half_made() {
    let place = Place::new();
    let first = base::ensure(&place.config(Some(place.archive("one", "1"))), &Silent).unwrap();
    let whole = fs::read(place.archive("two", &"2".repeat(100_000))).unwrap();
    let cut = place.path("cut.tar");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let error = base::ensure(&place.config(Some(cut)), &Silent).unwrap_err();
    assert!(matches!(error, BaseError::Archive { .. }), "{error}");
    assert_eq!(layers(&place), BTreeSet::from_iter(first.layers.clone()));
    assert_eq!(base::ensure(&place.config(None), &Silent).unwrap(), first);
}

#[test]
fn what_a_crash_left_is_cleared_and_a_lost_layer_is_noticed() {
    let place = Place::new();
    let file = place.archive("one", "1");
    fs::create_dir_all(place.path("layers/b-0123.tmp-abcd/usr")).unwrap();
    let first = base::ensure(&place.config(Some(file.clone())), &Silent).unwrap();
    assert_eq!(layers(&place).len(), 1);
    fs::remove_dir_all(place.path("layers").join(&first.layers[0])).unwrap();
    let again = base::ensure(&place.config(Some(file)), &Silent).unwrap();
    assert_eq!(place.mark(&again), "1");
}

#[test]
fn a_manifest_of_the_future_is_refused() {
    let place = Place::new();
    fs::create_dir_all(place.path("templates")).unwrap();
    fs::write(place.path("templates/base.json"), r#"{"version": 99}"#).unwrap();
    let error = base::ensure(&place.config(None), &Silent).unwrap_err();
    assert!(matches!(error, BaseError::Manifest { .. }), "{error}");
}

#[derive(Default)]
struct Recorded(Mutex<Vec<u8>>);

impl Progress for Recorded {
    fn step(&self, percent: u8, _stage: &str) {
        self.0.lock().unwrap().push(percent);
    }

    fn line(&self, _text: &str) {}
}

/// Needs root and mmdebstrap.
#[test]
fn an_unreachable_mirror_is_a_failure_with_a_log_and_no_remains() {
    if std::env::var_os("CASEMATE_TEST_ROOT").is_none_or(|value| value != "1") {
        println!("skipped: CASEMATE_TEST_ROOT is not 1");
        return;
    }
    let place = Place::new();
    let apt = place.path("host/etc/apt");
    fs::create_dir_all(&apt).unwrap();
    let keyrings = place.path("host/usr/share/keyrings");
    fs::create_dir_all(&keyrings).unwrap();
    fs::write(keyrings.join("debian-archive-keyring.gpg"), "").unwrap();
    fs::write(
        apt.join("sources.list"),
        "deb http://mirror.invalid/debian bookworm main\n",
    )
    .unwrap();
    let progress = Recorded::default();
    let error = base::ensure(&place.config(None), &progress).unwrap_err();
    let BaseError::Bootstrap { last, log } = &error else {
        panic!("{error}");
    };
    assert!(last.starts_with("E: "), "{last}");
    assert!(fs::read_to_string(log).unwrap().contains("mirror.invalid"));
    assert!(layers(&place).is_empty());
    let steps = progress.0.into_inner().unwrap();
    assert!(steps.is_sorted() && !steps.is_empty(), "{steps:?}");
}

/// Decision 9: what any released version wrote is read for ever.
#[test]
fn manifests_of_every_released_version_are_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let mut versions = 0;
    for folder in fs::read_dir(fixtures).unwrap() {
        let templates = folder.unwrap().path().join("templates");
        let layers = tempfile::tempdir().unwrap();
        fs::create_dir(layers.path().join("b-8a1e655787e6")).unwrap();
        let manifest = casemate_build::base::BaseManifest::load(&templates, layers.path())
            .unwrap()
            .expect("its layer is there");
        assert_eq!(manifest.alias, "base");
        assert_eq!(manifest.user.name, "user");
        versions += 1;
    }
    assert!(versions >= 1);
}
