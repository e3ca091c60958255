//! What there is in the bucket, for who has rows to compare it with.

use std::time::{Duration, SystemTime};

use super::{Artifacts, Shared};
use crate::Digest;
use crate::error::ArtifactError;
use crate::names::{self, SCOPES, Scope};

/// A manifest that is in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestEntry {
    pub manifest: Digest,
    /// Since it was put, by the bucket's clock. One without a row may be of a put whose row is not
    /// written yet.
    pub age: Duration,
    /// Length of the manifest itself.
    pub manifest_bytes: u64,
}

impl Artifacts {
    /// All scopes that have anything, in no order.
    pub async fn scopes(&self) -> Result<Vec<Scope>, ArtifactError> {
        let found = self.shared.bucket.folders(SCOPES).await?;
        // Others are not ours.
        Ok(found.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// All manifests of a scope, in no order: one for each put that was not removed. Takes some 60
    /// bytes of memory for each.
    pub async fn manifests(&self, scope: &Scope) -> Result<Vec<ManifestEntry>, ArtifactError> {
        self.shared.check_layout().await?;
        self.shared.manifests(scope).await
    }
}

impl Shared {
    pub(super) async fn manifests(
        &self,
        scope: &Scope,
    ) -> Result<Vec<ManifestEntry>, ArtifactError> {
        let now: SystemTime = self.clock.now();
        let mut entries = Vec::new();
        let mut listing = self.bucket.list(&names::manifests(scope));
        while let Some(found) = listing.next().await? {
            let Some(manifest) = names::digest_of(&found.name) else {
                continue;
            };
            let age = now.duration_since(found.modified).unwrap_or_default();
            entries.push(ManifestEntry {
                manifest,
                age,
                manifest_bytes: found.bytes,
            });
        }
        Ok(entries)
    }
}
