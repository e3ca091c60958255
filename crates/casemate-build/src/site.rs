//! Site layers: what the operator's network needs, laid over the lowest layer of every template.
//!
//! Extra certificates, mirrors, the resolver's address and the host name; and package sources, which
//! are why there is one layer for each Debian release and one for all other distributions, without
//! them. A layer is named by its content (`s-…`): a changed host gives another one, running
//! sandboxes keep theirs, and [`sweep`] removes what nobody uses. Credentials of the host never come
//! here (see [`crate::host`]).

mod compose;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use casemate_types::Distribution;
use sha2::{Digest, Sha256};

use crate::draft::{self, Draft};
use crate::host::HostError;
use compose::Composed;

/// What site layers start with.
pub const LAYER_PREFIX: &str = "s-";
/// Changes the names of all layers when the way of composing changes.
const COMPOSITION: &[u8] = b"casemate site layer 1\n";

/// `guest.ca_certificates`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificates {
    /// What an administrator added to the host (`/usr/local/share/ca-certificates/*.crt`).
    Host,
    None,
    Files(Vec<PathBuf>),
}

/// `guest.apt`, `guest.pip`, `guest.npm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mirror {
    /// The host's settings, as far as they hold no credentials.
    Host,
    /// What the template has.
    None,
    /// As it is: for apt a folder laid over `/etc/apt` of the base's release alone, for pip and npm a
    /// file. The operator named it, so nothing is left out of it.
    Path(PathBuf),
}

/// What the layers are made of.
#[derive(Debug, Clone)]
pub struct SiteConfig {
    /// Holds layer folders; on the pool's file system.
    pub layers_dir: PathBuf,
    pub certificates: Certificates,
    pub apt: Mirror,
    pub pip: Mirror,
    pub npm: Mirror,
    /// Where sandboxes' resolver listens: the gateway of every slot.
    pub nameserver: IpAddr,
    /// The host name inside; E2B's is `e2b.local`.
    pub hostname: String,
    /// Whose settings [`Certificates::Host`] and [`Mirror::Host`] mean: `/`, or a look-alike.
    pub host_root: PathBuf,
}

/// A layer, ready to be laid over the distribution it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The folder name below the layers folder.
    pub layer: String,
    /// For every process in a sandbox, above the template's and below what a sandbox sets.
    pub env: BTreeMap<String, String>,
    /// What of the host's settings was left out, in words for the operator.
    pub notes: Vec<String>,
}

/// Why there is no site layer.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("{verb} {}", path.display())]
    Io {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("'{0}' is no host name")]
    Hostname(String),
}

/// A layer's files: relative path → content. All are root's, 0644.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The site layer of every Debian release that can be named, and of all else; made where it is not
/// there yet. Extra certificates are added to those that the base trusts, whose layers are `base`
/// (folders, highest first). Blocks for some file operations and one run of `apt-config`.
pub fn ensure(
    config: &SiteConfig,
    base: &[&Path],
) -> Result<BTreeMap<Distribution, Site>, SiteError> {
    let composed = compose::compose(config, base)?;
    composed
        .into_iter()
        .map(|(distribution, composed)| Ok((distribution, layer_of(config, composed)?)))
        .collect()
}

fn layer_of(config: &SiteConfig, composed: Composed) -> Result<Site, SiteError> {
    let site = Site {
        layer: layer_name(&composed.files),
        env: composed.env,
        notes: composed.notes,
    };
    if config.layers_dir.join(&site.layer).is_dir() {
        return Ok(site);
    }
    write(config, &site.layer, &composed.files).map_err(|source| SiteError::Io {
        verb: "write a layer in",
        path: config.layers_dir.clone(),
        source,
    })?;
    Ok(site)
}

/// Removes site layers that are not `in_use`, and half-made ones.
pub fn sweep(layers_dir: &Path, in_use: &BTreeSet<String>) -> io::Result<Vec<String>> {
    draft::sweep(layers_dir, LAYER_PREFIX, in_use)
}

fn layer_name(files: &Files) -> String {
    let mut hash = Sha256::new_with_prefix(COMPOSITION);
    for (path, content) in files {
        let path = path.as_os_str().as_encoded_bytes();
        for part in [path, content] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    format!("{LAYER_PREFIX}{}", &hex::encode(hash.finalize())[..12])
}

fn write(config: &SiteConfig, layer: &str, files: &Files) -> io::Result<()> {
    let draft = Draft::open(&config.layers_dir, layer)?;
    for (path, content) in files {
        let mut dir = draft.path().to_owned();
        for part in path.parent().into_iter().flat_map(Path::components) {
            dir.push(part);
            if !dir.is_dir() {
                fs::create_dir(&dir)?;
                fs::set_permissions(
                    &dir,
                    fs::Permissions::from_mode(compose::folder_mode(
                        dir.strip_prefix(draft.path()).unwrap_or(&dir),
                    )),
                )?;
            }
        }
        let target = draft.path().join(path);
        fs::write(&target, content)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644))?;
    }
    draft.keep()?;
    Ok(())
}

#[cfg(test)]
mod tests;
