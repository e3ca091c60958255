//! The operator's machine, as far as sandboxes may know it: package sources and mirrors, proxies,
//! extra certificates.
//!
//! Reads settings files and passes on a named list of harmless settings. Secrets never pass:
//! a value with credentials in it is left out, and the reader says so in a note.

pub mod apt_conf;
pub mod apt_sources;
pub mod certificates;
pub mod registries;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest settings or certificate file that is read; a larger one is an error.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why the host's settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} holds a private key", path.display())]
    PrivateKey { path: PathBuf },
    #[error("apt-config failed: {message}")]
    AptConfig { message: String },
}

/// Settings taken over, and what was left out and why, in words for the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub text: String,
    pub notes: Vec<String>,
}

/// Why a value stays on the host.
pub(crate) fn unfit(value: &str) -> Option<&'static str> {
    let authorities = value.split("://").skip(1).map(|rest| {
        let end = rest
            .find(['/', '?', '#', ' ', '"', ','])
            .unwrap_or(rest.len());
        &rest[..end]
    });
    for authority in authorities {
        if authority.contains('@') {
            return Some("it holds credentials");
        }
        let host = match authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        if host == "localhost" || host == "::1" || host.starts_with("127.") {
            return Some("it points to the host's own loopback");
        }
    }
    None
}

/// A text file below the host's root; `None` when it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>, HostError> {
    let failed = |source| HostError::Read {
        path: path.into(),
        source,
    };
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(HostError::TooLarge { path: path.into() });
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The files of a folder with one of these endings, sorted by name; none when it is not there.
pub(crate) fn files_ending(dir: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, HostError> {
    let failed = |source| HostError::Read {
        path: dir.into(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let fits = |ending: &&str| path.extension().is_some_and(|have| have == *ending);
        if endings.iter().any(fits) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_credentials_or_loopback_stay_on_the_host() {
        for kept_back in [
            "https://me:secret@pypi.corp/simple",
            "https://mirror.example/simple https://token@corp/simple",
            "http://127.0.0.1:3142",
            "http://localhost:3142/debian",
            "http://[::1]:3142",
        ] {
            assert!(unfit(kept_back).is_some(), "{kept_back}");
        }
        for passed in [
            "https://mirror.example/simple",
            "false",
            "http://mirror.example/a@b",
            "",
        ] {
            assert_eq!(unfit(passed), None, "{passed}");
        }
    }
}
