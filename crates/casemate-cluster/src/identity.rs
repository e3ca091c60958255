//! What a member shows, and how it is kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casemate_rpc::control::{Admitted, Member};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

/// Of the file's format.
const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("make a key")]
    Make(#[source] rcgen::Error),
    #[error("read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {path}", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not what this casemate keeps of a member", path = path.display())]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} has version {found}, which this casemate does not know", path = path.display())]
    Version { path: PathBuf, found: u32 },
    #[error("the certificate, its key or its authority cannot be read")]
    Unreadable,
    #[error("the key and the certificate do not fit together")]
    Mismatch(#[source] rustls::Error),
}

/// A key that is made by the member and never leaves it. A new one for each certificate.
pub struct MemberKey(KeyPair);

impl MemberKey {
    pub fn make() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        Ok(Self(key.map_err(IdentityError::Make)?))
    }

    /// What the authority certifies: the point, hexadecimal.
    pub fn public(&self) -> String {
        hex::encode(self.0.der_bytes())
    }

    /// With what the authority answered.
    pub fn admitted(self, member: Member, admitted: &Admitted) -> Identity {
        Identity {
            version: VERSION,
            member,
            certificate: admitted.certificate.clone(),
            authorities: admitted.authorities.clone(),
            key: self.0.serialize_pem(),
        }
    }
}

/// A member's certificate, its key, and whom it trusts.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    version: u32,
    pub member: Member,
    certificate: String,
    authorities: String,
    key: String,
}

/// Says nothing of the key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// `None`: there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>, IdentityError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.into();
                return Err(IdentityError::Read { path, source });
            }
        };
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let record = |source| IdentityError::Record {
            path: path.into(),
            source,
        };
        let Versioned { version: found } = serde_json::from_str(&text).map_err(record)?;
        if found != VERSION {
            let path = path.into();
            return Err(IdentityError::Version { path, found });
        }
        serde_json::from_str(&text).map(Some).map_err(record)
    }

    /// Replaces the file as a whole, for its owner's eyes only.
    pub fn write(&self, path: &Path) -> Result<(), IdentityError> {
        let written = || {
            let beside = path.with_extension("new");
            // What a crash left of it may have other rights.
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&beside, path)
        };
        written().map_err(|source| IdentityError::Write {
            path: path.into(),
            source,
        })
    }

    pub(crate) fn certified(&self) -> Result<Arc<CertifiedKey>, IdentityError> {
        let unreadable = |_| IdentityError::Unreadable;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(unreadable)?;
        // The authority as well: a machine that joins knows it by its fingerprint alone.
        let chain = [&self.certificate, &self.authorities];
        let chain: Result<Vec<_>, _> = chain
            .into_iter()
            .flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes()))
            .collect();
        let chain = chain.map_err(unreadable)?;
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map(Arc::new)
            .map_err(IdentityError::Mismatch)
    }

    pub(crate) fn roots(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(self.authorities.as_bytes()) {
            let authority = authority.map_err(|_| IdentityError::Unreadable)?;
            let added = roots.add(authority);
            added.map_err(|_| IdentityError::Unreadable)?;
        }
        match roots.is_empty() {
            true => Err(IdentityError::Unreadable),
            false => Ok(Arc::new(roots)),
        }
    }
}
