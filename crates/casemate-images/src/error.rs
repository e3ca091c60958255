//! Why an image was not had. What a user of ours reads is `Display`; the cause is behind it, for logs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::credentials::WrongCredentials;
use crate::registry::{NotAnImage, PullError, RegistryCode};
use crate::web::FetchError;
use crate::{Digest, NotAReference, NotAnArchive};

/// What went wrong. The first eight, and `TooLarge` up to its end, are upstream's texts
/// (`templates.md` 4.2); `reference` is as it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    #[error("invalid image reference '{reference}': {why}")]
    Reference {
        reference: String,
        why: NotAReference,
    },
    #[error("image '{reference}' not found: the image or tag does not exist in the registry")]
    ManifestUnknown { reference: String },
    #[error("repository '{reference}' not found: verify the image name is correct")]
    RepositoryUnknown { reference: String },
    #[error("access denied to '{reference}': authentication required or insufficient permissions")]
    Unauthorized { reference: String },
    #[error("access denied to '{reference}': you don't have permission to pull this image")]
    Denied { reference: String },
    #[error("failed to pull image '{reference}': registry returned status code {status}")]
    Status { reference: String, status: u16 },
    /// Not reached, not understood, or at an address that is closed: which of them is no tenant's
    /// business, who could map our network with it.
    #[error("failed to pull image '{reference}': unable to retrieve image from registry")]
    Unreachable {
        reference: String,
        #[source]
        cause: Cause,
    },
    #[error("image architecture \"{found}\" does not match expected \"{expected}\"")]
    Platform { found: String, expected: String },
    #[error(
        "the uncompressed Docker image size ({}) exceeds the maximum filesystem size ({}). \
         Please reduce your Docker image size and build again",
        size(*.bytes), size(*.bytes_max)
    )]
    TooLarge {
        /// As far as it was read, or as the registry says.
        bytes: u64,
        bytes_max: u64,
    },
    #[error("failed to pull image '{reference}': the registry sent nothing for {} s", .after.as_secs())]
    Stalled { reference: String, after: Duration },
    #[error("failed to pull image '{reference}': what the registry sent is not {digest}")]
    WrongDigest { reference: String, digest: Digest },
    #[error("image '{reference}' cannot be used: {why}")]
    Unusable { reference: String, why: Why },
    #[error("image '{reference}' cannot be used: layer {digest} cannot be unpacked")]
    Corrupt {
        reference: String,
        digest: Digest,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("image '{reference}' cannot be used: layer {digest} is not what its config says")]
    WrongContent { reference: String, digest: Digest },
    #[error("the archive cannot be used: {0}")]
    Archive(#[from] NotAnArchive),
    #[error("invalid registry credentials: {0}")]
    Credentials(Why),
    #[error("image '{reference}' has no layer {index}")]
    NoLayer { reference: String, index: usize },
    #[error("no room for a layer of {}", size(*.bytes))]
    CacheFull { bytes: u64 },
    #[error("no space left on the host's disk")]
    DiskFull,
    #[error("the cache of images failed at {path}", path = .path.display())]
    Disk {
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
}

/// What was behind an error; for logs alone.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Cause(PullError);

/// What is wrong with what was given; it names nothing that a user may not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why(String);

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Cause {
    /// Whether an address was closed to others' wishes: worth a line of the operator's log.
    pub fn is_closed(&self) -> bool {
        matches!(
            self.0,
            PullError::Fetch(FetchError::Closed(_) | FetchError::Plain(_))
        )
    }
}

impl ImageError {
    /// What became of a request for this reference.
    pub(crate) fn pull(reference: &str, error: PullError) -> Self {
        let reference = reference.to_string();
        match error {
            PullError::Refused { status, code } => match code {
                Some(RegistryCode::ManifestUnknown) => Self::ManifestUnknown { reference },
                Some(RegistryCode::NameUnknown) => Self::RepositoryUnknown { reference },
                Some(RegistryCode::Unauthorized) => Self::Unauthorized { reference },
                Some(RegistryCode::Denied) => Self::Denied { reference },
                None => Self::Status {
                    reference,
                    status: status.as_u16(),
                },
            },
            PullError::Fetch(FetchError::Stalled(after)) => Self::Stalled { reference, after },
            error @ (PullError::Fetch(_) | PullError::Token) => Self::Unreachable {
                reference,
                cause: Cause(error),
            },
        }
    }

    pub(crate) fn unusable(reference: &str, why: NotAnImage) -> Self {
        match why {
            NotAnImage::Platform { found, expected } => Self::Platform { found, expected },
            why => Self::Unusable {
                reference: reference.to_string(),
                why: Why(why.to_string()),
            },
        }
    }

    /// A failure of the cache's own files.
    pub(crate) fn disk(path: &std::path::Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Disk {
                path: path.to_path_buf(),
                source: Arc::new(source),
            },
        }
    }

    /// What a [`crate::LayerReader`] said, from what [`std::io::Read`] lets through; gives other
    /// errors back.
    pub fn from_io(error: io::Error) -> Result<Self, io::Error> {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Self>())
        {
            Some(image) => Ok(image.clone()),
            None => Err(error),
        }
    }

    /// Whether another source of the same image may do better.
    pub(crate) fn is_of_source(&self) -> bool {
        match self {
            Self::ManifestUnknown { .. }
            | Self::RepositoryUnknown { .. }
            | Self::Unauthorized { .. }
            | Self::Denied { .. }
            | Self::Status { .. }
            | Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::WrongDigest { .. } => true,
            Self::Reference { .. }
            | Self::Platform { .. }
            | Self::TooLarge { .. }
            | Self::Unusable { .. }
            | Self::Corrupt { .. }
            | Self::WrongContent { .. }
            | Self::Archive(_)
            | Self::Credentials(_)
            | Self::NoLayer { .. }
            | Self::CacheFull { .. }
            | Self::DiskFull
            | Self::Disk { .. } => false,
        }
    }
}

impl From<WrongCredentials> for ImageError {
    fn from(why: WrongCredentials) -> Self {
        Self::Credentials(Why(why.to_string()))
    }
}

/// `123 B`, `1.5 MB`, `25.6 GB`: powers of a thousand.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (bytes / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        (tenths, unit) = (tenths / 1000, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1500), "1.5 kB");
        assert_eq!(size(26_214_400_000), "26.2 GB");
        assert_eq!(size(u64::MAX), "18446.7 PB");
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let path = std::path::Path::new("/cache");
        let of = |kind: io::ErrorKind| ImageError::disk(path, kind.into()).to_string();
        let full = "no space left on the host's disk";
        assert_eq!(of(io::ErrorKind::StorageFull), full);
        assert_eq!(of(io::ErrorKind::QuotaExceeded), full);
        let broken = "the cache of images failed at /cache";
        assert_eq!(of(io::ErrorKind::PermissionDenied), broken);
    }
}
