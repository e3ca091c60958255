//! The certificate that is shown now.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::pair::Checked;
use crate::validity::Validity;

/// Shared by whoever renews and whoever shakes hands. Another certificate concerns the handshakes
/// that follow; connections that are open know nothing of it.
///
/// One certificate has all names of an installation, so it is shown whatever name the client asks
/// for: one that asks for none, or for another, gets it too and judges by itself.
#[derive(Default)]
pub struct Current(RwLock<Option<Checked>>);

impl Current {
    pub fn show(&self, checked: Checked) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(checked);
    }

    /// `None` until there was one: handshakes fail.
    pub fn validity(&self) -> Option<Validity> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().map(|checked| checked.validity)
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Current").field(&self.validity()).finish()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().map(|checked| Arc::clone(&checked.certified))
    }
}
