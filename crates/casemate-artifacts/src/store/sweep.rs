//! Pieces that no manifest names go. `names.rs` says why that is safe beside puts.

use super::{Artifacts, Shared};
use crate::Digest;
use crate::error::{ArtifactError, What};
use crate::names::{self, PERIOD, Period, Scope};

/// Objects that are deleted by one request, where the cloud can.
const BATCH: usize = 500;
/// Marks that are gathered before what is there twice is dropped.
const MARKS_AT_ONCE: usize = 1 << 16;

/// Where a sweep ends that would take too long; the next one goes on with what is left.
#[derive(Debug, Clone, Copy)]
pub struct SweepLimits {
    /// Most pieces that are deleted. It may be exceeded by a batch of 500.
    pub deleted_max: u64,
}

impl Default for SweepLimits {
    /// A hundred thousand.
    fn default() -> Self {
        Self {
            deleted_max: 100_000,
        }
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    pub deleted: u64,
    pub deleted_bytes: u64,
    /// Pieces that are old enough and that a manifest names.
    pub kept: u64,
    /// Whether it came to the end.
    pub done: bool,
}

impl Artifacts {
    /// Deletes pieces of a scope that no manifest names and that are old enough. It may be ended and
    /// begun again at any time, and several may run at once. A manifest that cannot be read, or is
    /// corrupt, ends it before anything is deleted.
    ///
    /// Takes eight bytes of memory for each old piece that is named, and 60 for each manifest: a
    /// million pieces are 8 MB.
    pub async fn sweep(&self, scope: &Scope, limits: SweepLimits) -> Result<Swept, ArtifactError> {
        let shared = &self.shared;
        shared.check_layout().await?;
        // Before manifests are listed: all that is written later names younger pieces.
        let now = Period::at(shared.clock.now());
        let old = shared.old_periods(scope, now).await?;
        // Of a folder; what is being written is no older than a request.
        shared
            .bucket
            .sweep_partial(&names::manifests(scope), PERIOD)
            .await;
        if old.is_empty() {
            return Ok(Swept {
                done: true,
                ..Swept::default()
            });
        }
        let named = shared.named(scope, now).await?;
        let mut swept = Swept::default();
        for period in old {
            let below = format!("{}/{period}", names::pieces(scope));
            shared.bucket.sweep_partial(&below, PERIOD).await;
            if !shared
                .sweep_period(&below, period, &named, limits, &mut swept)
                .await?
            {
                return Ok(swept);
            }
        }
        swept.done = true;
        Ok(swept)
    }
}

impl Shared {
    async fn old_periods(&self, scope: &Scope, now: Period) -> Result<Vec<Period>, ArtifactError> {
        let found = self.bucket.folders(&names::pieces(scope)).await?;
        let periods = found.iter().filter_map(|name| Period::parse(name));
        let mut old: Vec<_> = periods.filter(|period| period.is_old(now)).collect();
        old.sort_unstable();
        Ok(old)
    }

    /// Marks of the old pieces that manifests name, sorted.
    async fn named(&self, scope: &Scope, now: Period) -> Result<Vec<u64>, ArtifactError> {
        let (mut named, mut dedup_at) = (Vec::new(), MARKS_AT_ONCE);
        for entry in self.manifests(scope).await? {
            let read = self
                .read_manifest(scope, &entry.manifest, entry.manifest_bytes)
                .await;
            let manifest = match read {
                Ok(manifest) => manifest,
                // Removed since it was listed.
                Err(ArtifactError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let old = manifest
                .pieces
                .iter()
                .filter(|piece| piece.period.is_old(now));
            named.extend(old.map(|piece| mark(piece.period, &piece.digest)));
            // What many manifests share is kept once.
            if named.len() >= dedup_at {
                named.sort_unstable();
                named.dedup();
                dedup_at = named.len() * 2 + MARKS_AT_ONCE;
            }
        }
        named.sort_unstable();
        named.dedup();
        Ok(named)
    }

    /// Answers whether it came to the period's end.
    async fn sweep_period(
        &self,
        below: &str,
        period: Period,
        named: &[u64],
        limits: SweepLimits,
        swept: &mut Swept,
    ) -> Result<bool, ArtifactError> {
        let (mut batch, mut bytes) = (Vec::with_capacity(BATCH), 0);
        let mut listing = self.bucket.list(below);
        while let Some(found) = listing.next().await? {
            // What is not ours by its name stays.
            let Some(digest) = names::digest_of(&found.name) else {
                continue;
            };
            if named.binary_search(&mark(period, &digest)).is_ok() {
                swept.kept += 1;
                continue;
            }
            batch.push(found.name);
            bytes += found.bytes;
            if batch.len() == BATCH {
                self.delete_batch(&mut batch, &mut bytes, swept).await?;
                if swept.deleted >= limits.deleted_max {
                    return Ok(false);
                }
            }
        }
        self.delete_batch(&mut batch, &mut bytes, swept).await?;
        Ok(swept.deleted < limits.deleted_max)
    }

    async fn delete_batch(
        &self,
        batch: &mut Vec<String>,
        bytes: &mut u64,
        swept: &mut Swept,
    ) -> Result<(), ArtifactError> {
        if !batch.is_empty() {
            self.bucket.delete(batch, What::Listing).await?;
        }
        swept.deleted += batch.len() as u64;
        swept.deleted_bytes += std::mem::take(bytes);
        batch.clear();
        Ok(())
    }
}

/// Eight bytes that stand for a piece. Two pieces may share one, at odds of one to 2^44 among a
/// million: then garbage stays, and never goes what is named.
fn mark(period: Period, digest: &Digest) -> u64 {
    digest
        .head()
        .wrapping_add(u64::from(period.0).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
