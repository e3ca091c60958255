//! Decides what the files of site layers are.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use casemate_types::Distribution;

use super::{Certificates, Files, Mirror, SiteConfig, SiteError};
use crate::base::packages::SUITE;
use crate::host::apt_sources::{self, RELEASES};
use crate::host::certificates::{self, Certificate};
use crate::host::{self, HostError, Settings, apt_conf, registries};

/// Every Debian program's list of authorities.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
/// For programs with lists of their own.
const BUNDLE_VARIABLES: [&str; 4] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
];
/// Files of `guest.apt = PATH` at most, and how deep; beyond it the folder was a mistake.
const APT_FILES_MAX: usize = 200;
const APT_DEPTH_MAX: usize = 3;
/// What is left of a `sources.list` whose sources are elsewhere.
const MOVED_SOURCES: &str = "# See /etc/apt/sources.list.d/debian.sources\n";

#[derive(Default, Clone)]
pub(super) struct Composed {
    pub(super) files: Files,
    pub(super) env: BTreeMap<String, String>,
    pub(super) notes: Vec<String>,
}

/// One for each distribution: what they have in common, and the package sources of each.
pub(super) fn compose(
    config: &SiteConfig,
    base: &[&Path],
) -> Result<BTreeMap<Distribution, Composed>, SiteError> {
    let mut common = Composed::default();
    names(config, &mut common)?;
    let extra = match &config.certificates {
        Certificates::Host => certificates::host_certificates(&config.host_root)?,
        Certificates::None => Vec::new(),
        Certificates::Files(files) => certificates::certificates(files)?,
    };
    let trusting = add_certificates(&extra, base, &mut common)?;
    pip(config, trusting, &mut common)?;
    npm(config, trusting, &mut common)?;
    let options = match config.apt {
        Mirror::Host => apt_conf::apt_options(&config.host_root)?,
        Mirror::None | Mirror::Path(_) => Settings::default(),
    };
    let mut all = BTreeMap::new();
    for release in RELEASES {
        let mut composed = common.clone();
        apt(config, release, &options, &mut composed)?;
        all.insert(Distribution::Debian(release.into()), composed);
    }
    all.insert(Distribution::Other, common);
    Ok(all)
}

/// Modes of folders that are not 0755 in the base: an upper folder's mode wins in an overlay.
pub(super) fn folder_mode(path: &Path) -> u32 {
    if path.starts_with("usr/local") {
        0o777
    } else {
        0o755
    }
}

fn names(config: &SiteConfig, composed: &mut Composed) -> Result<(), SiteError> {
    let name = &config.hostname;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err(SiteError::Hostname(name.clone()));
    }
    composed.put("etc/hostname", format!("{name}\n"));
    composed.put(
        "etc/hosts",
        format!(
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\n\
             ff02::2 ip6-allrouters\n127.0.1.1 {name}\n"
        ),
    );
    composed.put(
        "etc/resolv.conf",
        format!("nameserver {}\n", config.nameserver),
    );
    Ok(())
}

/// Adds authorities to the base's bundle; `true` when programs must be told of it.
fn add_certificates(
    extra: &[Certificate],
    base: &[&Path],
    composed: &mut Composed,
) -> Result<bool, SiteError> {
    if extra.is_empty() {
        return Ok(false);
    }
    for certificate in extra {
        // Where `update-ca-certificates`, run inside, finds them again.
        let path = format!("usr/local/share/ca-certificates/{}", certificate.name);
        composed.put(&path, certificate.pem.clone());
    }
    let Some(mut bundle) = topmost(base, BUNDLE)? else {
        let note = "the base has no certificate bundle: extra certificates are not in use";
        composed.notes.push(note.into());
        return Ok(false);
    };
    if !bundle.ends_with('\n') {
        bundle.push('\n');
    }
    for certificate in extra {
        if !bundle.contains(certificate.pem.trim_end()) {
            bundle.push_str(&certificate.pem);
        }
    }
    composed.put(BUNDLE, bundle);
    for name in BUNDLE_VARIABLES {
        composed.env.insert(name.into(), format!("/{BUNDLE}"));
    }
    Ok(true)
}

/// A file as the base's layers show it. Not followed when it is a link: a base could name a file of
/// the host.
fn topmost(base: &[&Path], path: &str) -> Result<Option<String>, SiteError> {
    for layer in base {
        let path = layer.join(path);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(read_error(&path, source)),
            Ok(meta) if meta.is_file() => return Ok(host::read(&path)?),
            Ok(_) => return Ok(None),
        }
    }
    Ok(None)
}

fn apt(
    config: &SiteConfig,
    release: &str,
    options: &Settings,
    composed: &mut Composed,
) -> Result<(), SiteError> {
    match &config.apt {
        Mirror::None => {}
        // It names one release, and that is the base's.
        Mirror::Path(_) if release != SUITE => {}
        Mirror::Path(dir) => copy_folder(dir, Path::new("etc/apt"), 0, composed)?,
        Mirror::Host => {
            let sources = apt_sources::debian_sources_like(&config.host_root, release)?;
            if !sources.text.is_empty() {
                // The file of this name that the base has, and images since bookworm: it is
                // replaced, not added to. Earlier images have another.
                composed.put("etc/apt/sources.list.d/debian.sources", sources.text);
                if release == "bullseye" {
                    composed.put("etc/apt/sources.list", MOVED_SOURCES.into());
                }
            }
            if !options.text.is_empty() {
                composed.put("etc/apt/apt.conf.d/95casemate-site", options.text.clone());
            }
            composed.notes.extend(sources.notes);
            composed.notes.extend(options.notes.iter().cloned());
        }
    }
    Ok(())
}

fn pip(config: &SiteConfig, trusting: bool, composed: &mut Composed) -> Result<(), SiteError> {
    let mut text = match &config.pip {
        Mirror::Path(file) => {
            composed.put("etc/pip.conf", named_file(file)?);
            return Ok(());
        }
        Mirror::None => String::new(),
        Mirror::Host => {
            let options = registries::pip_options(&config.host_root)?;
            composed.notes.extend(options.notes);
            options.text
        }
    };
    if trusting {
        text.push_str(&format!("cert = /{BUNDLE}\n"));
    }
    if !text.is_empty() {
        composed.put("etc/pip.conf", format!("[global]\n{text}"));
    }
    Ok(())
}

fn npm(config: &SiteConfig, trusting: bool, composed: &mut Composed) -> Result<(), SiteError> {
    let mut text = match &config.npm {
        Mirror::Path(file) => {
            composed.put("usr/local/etc/npmrc", named_file(file)?);
            return Ok(());
        }
        Mirror::None => String::new(),
        Mirror::Host => {
            let options = registries::npm_options(&config.host_root)?;
            composed.notes.extend(options.notes);
            options.text
        }
    };
    if trusting {
        text.push_str(&format!("cafile = /{BUNDLE}\n"));
    }
    if !text.is_empty() {
        composed.put("usr/local/etc/npmrc", text);
    }
    Ok(())
}

fn named_file(path: &Path) -> Result<String, SiteError> {
    let missing = || read_error(path, io::ErrorKind::NotFound.into());
    host::read(path)?.ok_or_else(missing)
}

fn copy_folder(
    from: &Path,
    to: &Path,
    depth: usize,
    composed: &mut Composed,
) -> Result<(), SiteError> {
    let entries = fs::read_dir(from).map_err(|source| read_error(from, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| read_error(from, source))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() && depth < APT_DEPTH_MAX {
            copy_folder(&path, &target, depth + 1, composed)?;
        } else if path.is_file() && composed.files.len() < APT_FILES_MAX {
            let content = fs::read(&path).map_err(|source| read_error(&path, source))?;
            composed.files.insert(target, content);
        } else {
            return Err(read_error(
                &path,
                io::Error::other("not what an apt folder holds"),
            ));
        }
    }
    Ok(())
}

fn read_error(path: &Path, source: io::Error) -> SiteError {
    SiteError::Host(HostError::Read {
        path: path.into(),
        source,
    })
}

impl Composed {
    fn put(&mut self, path: &str, content: String) {
        self.files.insert(PathBuf::from(path), content.into_bytes());
    }
}
