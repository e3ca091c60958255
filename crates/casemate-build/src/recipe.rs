//! What a client asks to be built (`templates.md` 3).

use std::fmt;

/// A recipe as it came; what is wrong with a step is found when its turn comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Exactly one of these three is to be there.
    pub from_image: Option<String>,
    pub from_template: Option<String>,
    /// Ours, not E2B's.
    pub from_archive: Option<FromArchive>,
    pub registry: Option<RegistryLogin>,
    /// Nothing is taken from the cache, not even the image.
    pub force: bool,
    pub steps: Vec<Step>,
    pub start: Option<String>,
    pub ready: Option<String>,
}

/// An image in an uploaded archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromArchive {
    /// The client's name of the upload.
    pub files_hash: String,
    /// Which image, where there are several.
    pub reference: Option<String>,
}

/// One step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// `COPY`, `ENV`, `RUN`, `WORKDIR`, `USER`, in any case; `ADD` and `ARG` are names of the first two.
    pub kind: String,
    pub args: Vec<String>,
    /// The client's name of an uploaded archive.
    pub files_hash: Option<String>,
    /// This step and all behind it are not taken from the cache.
    pub force: bool,
}

/// How to log in to an image's registry.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryLogin {
    Basic {
        username: String,
        password: String,
    },
    Aws {
        access_key_id: String,
        secret_access_key: String,
        region: String,
    },
    Gcp {
        service_account_json: String,
    },
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Aws { .. } => "Aws",
            Self::Gcp { .. } => "Gcp",
        })
    }
}
