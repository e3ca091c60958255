use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// A host, a template and a place for layers, all below one temporary folder.
struct Bench {
    dir: tempfile::TempDir,
}

fn debian(release: &str) -> Distribution {
    Distribution::Debian(release.into())
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        bench.put("template", BUNDLE, "old");
        fs::create_dir_all(bench.path("host")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, root: &str, path: &str, content: &str) {
        let path = self.path(root).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn config(&self) -> SiteConfig {
        SiteConfig {
            layers_dir: self.path("layers"),
            certificates: Certificates::Host,
            apt: Mirror::Host,
            pip: Mirror::Host,
            npm: Mirror::Host,
            nameserver: "100.64.0.1".parse().unwrap(),
            hostname: "e2b.local".into(),
            host_root: self.path("host"),
        }
    }

    fn ensure(&self) -> Site {
        self.ensure_all()[&debian("bookworm")].clone()
    }

    fn ensure_all(&self) -> BTreeMap<Distribution, Site> {
        ensure(&self.config(), &[&self.path("template")]).unwrap()
    }

    fn read(&self, site: &Site, path: &str) -> Option<String> {
        fs::read_to_string(self.path("layers").join(&site.layer).join(path)).ok()
    }
}

#[test]
fn a_plain_host_gives_names_and_no_settings() {
    let bench = Bench::new();
    let site = bench.ensure();
    assert_eq!(
        bench.read(&site, "etc/resolv.conf").unwrap(),
        "nameserver 100.64.0.1\n"
    );
    assert_eq!(bench.read(&site, "etc/hostname").unwrap(), "e2b.local\n");
    assert!(
        bench
            .read(&site, "etc/hosts")
            .unwrap()
            .contains("127.0.1.1 e2b.local")
    );
    assert_eq!(bench.read(&site, BUNDLE), None);
    assert_eq!(bench.read(&site, "etc/pip.conf"), None);
    assert!(site.env.is_empty() && site.notes.is_empty());
    assert!(site.layer.len() <= 16);
}

#[test]
fn host_certificates_join_the_templates_bundle() {
    let bench = Bench::new();
    bench.put("host", "usr/local/share/ca-certificates/my corp.crt", PEM);
    let site = bench.ensure();
    assert_eq!(bench.read(&site, BUNDLE).unwrap(), format!("old\n{PEM}"));
    let added = "usr/local/share/ca-certificates/casemate-00-my_corp.crt";
    assert_eq!(bench.read(&site, added).unwrap(), PEM);
    assert_eq!(site.env["NODE_EXTRA_CA_CERTS"], format!("/{BUNDLE}"));
    let pip = bench.read(&site, "etc/pip.conf").unwrap();
    assert_eq!(pip, format!("[global]\ncert = /{BUNDLE}\n"));
    assert_eq!(
        bench.read(&site, "usr/local/etc/npmrc").unwrap(),
        format!("cafile = /{BUNDLE}\n")
    );
}

#[test]
fn each_release_has_its_sources_and_other_distributions_none() {
    let bench = Bench::new();
    bench.put("host", "usr/local/share/ca-certificates/a.crt", PEM);
    bench.put("host", "etc/pip.conf", "[global]\ntimeout = 60\n");
    bench.put(
        "host",
        "etc/apt/sources.list",
        "deb http://m/debian bookworm main\ndeb http://m/sec bookworm-security main\n",
    );
    let sites = bench.ensure_all();
    assert_eq!(sites.len(), 6);
    for (distribution, site) in &sites {
        let sources = bench.read(site, "etc/apt/sources.list.d/debian.sources");
        match distribution {
            Distribution::Other => assert_eq!(sources, None),
            Distribution::Debian(release) => {
                let sources = sources.unwrap();
                assert!(
                    sources.contains(&format!("Suites: {release}\n")),
                    "{sources}"
                );
                let security = format!("Suites: {release}-security\n");
                assert_eq!(sources.contains(&security), release != "sid", "{sources}");
            }
        }
        let old = bench.read(site, "etc/apt/sources.list");
        assert_eq!(old.is_some(), *distribution == debian("bullseye"));
        assert_eq!(bench.read(site, BUNDLE).unwrap(), format!("old\n{PEM}"));
        let pip = bench.read(site, "etc/pip.conf").unwrap();
        assert!(pip.contains("timeout"), "{pip}");
        assert!(bench.read(site, "etc/resolv.conf").is_some());
        assert_eq!(site.env["SSL_CERT_FILE"], format!("/{BUNDLE}"));
    }
    assert_eq!(bench.ensure_all(), sites);
    // Without sources all are alike, and one layer.
    fs::remove_file(bench.path("host/etc/apt/sources.list")).unwrap();
    let alike = bench.ensure_all();
    let layers: BTreeSet<_> = alike.values().map(|site| &site.layer).collect();
    assert_eq!(layers.len(), 1);
}

#[test]
fn a_private_key_among_the_certificates_is_refused() {
    let bench = Bench::new();
    let key = format!("{PEM}-----BEGIN PRIVATE KEY-----\nx\n");
    bench.put("host", "usr/local/share/ca-certificates/a.crt", &key);
    let error = ensure(&bench.config(), &[&bench.path("template")]).unwrap_err();
    assert!(
        matches!(error, SiteError::Host(HostError::PrivateKey { .. })),
        "{error}"
    );
}

#[test]
fn secrets_of_the_host_are_in_no_file_of_the_layer() {
    let bench = Bench::new();
    bench.put(
        "host",
        "etc/pip.conf",
        "[global]\nindex-url = https://u:sekret@corp/simple\n",
    );
    bench.put(
        "host",
        "etc/npmrc",
        "//corp/:_authToken=sekret\nregistry=https://corp/\n",
    );
    bench.put(
        "host",
        "etc/apt/auth.conf.d/corp.conf",
        "machine corp login u password sekret\n",
    );
    bench.put(
        "host",
        "etc/apt/sources.list",
        "deb https://u:sekret@corp bookworm main\n",
    );
    let site = bench.ensure();
    assert_eq!(site.notes.len(), 3, "{:?}", site.notes);
    assert_eq!(
        bench.read(&site, "usr/local/etc/npmrc").unwrap(),
        "registry = https://corp/\n"
    );
    let layer = bench.path("layers").join(&site.layer);
    let mut folders = vec![layer];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert!(
                    !fs::read_to_string(&path).unwrap().contains("sekret"),
                    "{path:?}"
                );
            }
        }
    }
}

#[test]
fn the_name_follows_the_content_and_unused_layers_go() {
    let bench = Bench::new();
    let first = bench.ensure();
    assert_eq!(bench.ensure(), first);
    bench.put("host", "etc/pip.conf", "[global]\ntimeout = 60\n");
    let second = bench.ensure();
    assert_ne!(first.layer, second.layer);
    let in_use = BTreeSet::from([second.layer.clone()]);
    assert_eq!(
        sweep(&bench.path("layers"), &in_use).unwrap(),
        [first.layer]
    );
    assert!(bench.path("layers").join(&second.layer).is_dir());
}

#[test]
fn a_link_in_the_template_is_not_followed_out_of_it() {
    let bench = Bench::new();
    bench.put("host", "usr/local/share/ca-certificates/a.crt", PEM);
    let bundle = bench.path("template").join(BUNDLE);
    fs::remove_file(&bundle).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", &bundle).unwrap();
    let site = bench.ensure();
    assert_eq!(bench.read(&site, BUNDLE), None);
    assert_eq!(site.notes.len(), 1);
}

#[test]
fn named_apt_folders_are_laid_over_as_they_are() {
    let bench = Bench::new();
    bench.put("mine", "sources.list.d/debian.sources", "Types: deb\n");
    let mut config = bench.config();
    config.apt = Mirror::Path(bench.path("mine"));
    let sites = ensure(&config, &[&bench.path("template")]).unwrap();
    let read = |distribution| {
        let path = "etc/apt/sources.list.d/debian.sources";
        bench.read(&sites[&distribution], path)
    };
    assert_eq!(read(debian("bookworm")).unwrap(), "Types: deb\n");
    // It says nothing of other releases.
    assert_eq!(read(debian("trixie")), None);
    assert_eq!(read(Distribution::Other), None);
    config.hostname = "a b".into();
    assert!(matches!(
        ensure(&config, &[Path::new("/nowhere")]),
        Err(SiteError::Hostname(_))
    ));
}
