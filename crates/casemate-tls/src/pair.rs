//! A certificate chain with its key, as text and checked.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use crate::validity::Validity;

/// PEM: the server's certificate first, then those that it was signed by; and its private key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

/// Says nothing of the key.
impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

/// Why a pair cannot be shown to clients.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("the certificate chain is not PEM")]
    Chain(#[source] pem::Error),
    #[error("there is no certificate in it")]
    Empty,
    #[error("the key is not a private key in PEM")]
    Key(#[source] pem::Error),
    #[error("the key and the certificate do not fit together")]
    Mismatch(#[source] rustls::Error),
    #[error("the certificate cannot be read")]
    Certificate,
    #[error("the certificate holds from {not_before} on (seconds since 1970), which is to come")]
    NotYet { not_before: i64 },
    #[error("the certificate ended at {not_after} (seconds since 1970)")]
    Over { not_after: i64 },
}

/// A pair that can be shown.
#[derive(Debug, Clone)]
pub struct Checked {
    pub(crate) certified: Arc<CertifiedKey>,
    pub validity: Validity,
}

impl Pair {
    /// Whether chain and key can be read and belong together.
    pub fn read(&self) -> Result<Checked, PairError> {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(PairError::Chain)?;
        let first = chain.first().ok_or(PairError::Empty)?;
        let validity = Validity::of(first).ok_or(PairError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(PairError::Key)?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(PairError::Mismatch)?;
        Ok(Checked {
            certified: Arc::new(certified),
            validity,
        })
    }

    /// The same, and whether it holds at this moment (seconds since 1970).
    pub fn check(&self, now: i64) -> Result<Checked, PairError> {
        let checked = self.read()?;
        checked.holds(now)?;
        Ok(checked)
    }
}

impl Checked {
    /// Whether it holds at this moment (seconds since 1970): if not, clients refuse it.
    pub fn holds(&self, now: i64) -> Result<(), PairError> {
        let Validity {
            not_before,
            not_after,
        } = self.validity;
        if now < not_before {
            return Err(PairError::NotYet { not_before });
        }
        if now > not_after {
            return Err(PairError::Over { not_after });
        }
        Ok(())
    }

    /// Whether a client that asks for this host would find it in the certificate.
    pub fn covers(&self, host: &str) -> bool {
        let name = ServerName::try_from(host);
        let parsed = self.certified.cert.first().map(ParsedCertificate::try_from);
        match (name, parsed) {
            (Ok(name), Some(Ok(parsed))) => {
                rustls::client::verify_server_name(&parsed, &name).is_ok()
            }
            _ => false,
        }
    }
}
