//! What is answered to an authority that looks whether a name is ours (HTTP-01).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Where an authority looks (RFC 8555, 8.3).
const PATH: &str = "/.well-known/acme-challenge/";

/// The answers that are expected now, by token. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Challenges(Arc<RwLock<HashMap<String, String>>>);

impl Challenges {
    /// What a request for this path is answered; `None`: it is no challenge that is open.
    pub fn answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PATH)?;
        let open = self.0.read().unwrap_or_else(PoisonError::into_inner);
        open.get(token).cloned()
    }

    pub(crate) fn open(&self, token: String, answer: String) {
        let mut open = self.0.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(token, answer);
    }

    pub(super) fn close(&self, token: &str) {
        let mut open = self.0.write().unwrap_or_else(PoisonError::into_inner);
        open.remove(token);
    }
}
