//! Extra certificate authorities.

use std::path::{Path, PathBuf};

use super::{HostError, files_ending, read};

/// One file of certificates in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// A file name that ends in `.crt`, of harmless characters.
    pub name: String,
    /// Ends with one newline.
    pub pem: String,
}

/// What an administrator added to the host for `update-ca-certificates`.
pub fn host_certificates(host_root: &Path) -> Result<Vec<Certificate>, HostError> {
    let dir = host_root.join("usr/local/share/ca-certificates");
    certificates(&files_ending(&dir, &["crt"])?)
}

/// Certificates of named files. A file without one, or with a private key, is an error: it was
/// named by mistake.
pub fn certificates(paths: &[PathBuf]) -> Result<Vec<Certificate>, HostError> {
    paths
        .iter()
        .enumerate()
        .map(|(at, path)| certificate(at, path))
        .collect()
}

fn certificate(at: usize, path: &Path) -> Result<Certificate, HostError> {
    let text = read(path)?.ok_or_else(|| HostError::Read {
        path: path.into(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    if text.contains("PRIVATE KEY-----") {
        return Err(HostError::PrivateKey { path: path.into() });
    }
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(HostError::NoCertificate { path: path.into() });
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let harmless = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let stem: String = stem.chars().map(harmless).take(64).collect();
    Ok(Certificate {
        // Numbered: two files of different folders may have one name.
        name: format!("casemate-{at:02}-{stem}.crt"),
        pem: format!("{}\n", text.trim()),
    })
}
