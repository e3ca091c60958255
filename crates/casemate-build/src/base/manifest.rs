//! The facts of a base that is kept on disk, as JSON with a version.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use casemate_types::{Resources, TemplateId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::BaseError;

/// The version written. A reader refuses what is newer; older ones are converted here.
pub const MANIFEST_VERSION: u32 = 1;

const FILE_NAME: &str = "base.json";

/// What the node needs to start sandboxes of the base template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseManifest {
    pub version: u32,
    pub template_id: TemplateId,
    pub build_id: Uuid,
    pub alias: String,
    /// Folder names below the layers folder, lowest first.
    pub layers: Vec<String>,
    pub resources: Resources,
    /// The user of commands and files that name none.
    pub user: BaseUser,
    /// Where commands start that name no folder.
    pub workdir: String,
    /// Set for every process, below what a sandbox or a command sets.
    pub env: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub size_bytes: u64,
    pub packages: PackageList,
    pub source: BaseSource,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
}

/// Which Debian packages are inside; two bases with one hash have the same programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageList {
    pub count: usize,
    /// SHA-256 of the sorted lines `name version`, hexadecimal.
    pub sha256: String,
}

/// Where a base came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum BaseSource {
    /// Made on this host from its apt sources.
    Bootstrap,
    /// Made from an archive; its length and time tell whether the same file is given again.
    Archive {
        bytes: u64,
        modified: Option<Timestamp>,
    },
}

impl BaseManifest {
    pub fn path(templates_dir: &Path) -> PathBuf {
        templates_dir.join(FILE_NAME)
    }

    /// The kept base, if there is one and its layers are still there.
    pub fn load(templates_dir: &Path, layers_dir: &Path) -> Result<Option<Self>, BaseError> {
        let path = Self::path(templates_dir);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(BaseError::io("read", &path)(source)),
            Ok(text) => text,
        };
        let manifest = Self::parse(&text).map_err(|reason| BaseError::Manifest { path, reason })?;
        let whole = manifest
            .layers
            .iter()
            .all(|name| layers_dir.join(name).is_dir());
        Ok(whole.then_some(manifest))
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(text).map_err(ManifestError::Json)?;
        if version != MANIFEST_VERSION {
            return Err(ManifestError::Version(version));
        }
        serde_json::from_slice(text).map_err(ManifestError::Json)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("plain fields have a JSON form");
        text.push(b'\n');
        text
    }

    pub(super) fn save(&self, templates_dir: &Path) -> Result<(), BaseError> {
        let path = Self::path(templates_dir);
        crate::draft::write_file(&path, &self.to_json()).map_err(BaseError::io("write", &path))
    }
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("not a manifest of a base")]
    Json(#[source] serde_json::Error),
    #[error("version {0} is not known to this version of Casemate (it knows {MANIFEST_VERSION})")]
    Version(u32),
}
