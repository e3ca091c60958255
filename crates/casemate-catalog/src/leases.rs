//! The port of leases: that something is being done, by whom, and until when at most.
//!
//! A lease keeps two servers from the same work; it is no lock that truth may rest on. Its holder
//! may be paused past its end, and the catalog may lose it: what is done under a lease is written
//! by compare-and-set on the store's generation.

use std::time::Duration;

use async_trait::async_trait;

use crate::CatalogError;

/// Bytes of a lease's name, and of its holder's.
pub const LEASE_NAME_BYTES_MAX: usize = 200;
/// Bytes of what a lease says of itself.
pub const LEASE_NOTE_BYTES_MAX: usize = 1024;
/// A lease that is not renewed ends after this long at most.
pub const LEASE_LASTS_MAX: Duration = Duration::from_secs(3600);

/// What came of asking for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseTake {
    /// It is the holder's. Each lease that is given has a higher fence than those before it, of any
    /// name; what cannot be lost (a row) may remember it.
    Taken { fence: u64 },
    /// Somebody has it, for `left` unless it is given or renewed.
    Held {
        holder: String,
        note: String,
        left: Duration,
    },
}

#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease of `name` for `lasts`. `holder` names one attempt of one server: the same
    /// that asks again, as an answer may be lost, has it anew under the same fence.
    /// [`CatalogError::Limit`] for what is longer than this module's limits, or empty.
    async fn lease_take(
        &self,
        name: &str,
        holder: &str,
        note: &str,
        lasts: Duration,
    ) -> Result<LeaseTake, CatalogError>;

    /// Makes a lease last from now on; `false`: it is not the holder's any more.
    async fn lease_renew(
        &self,
        name: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<bool, CatalogError>;

    /// Ends a lease; `false`: it was not the holder's any more. Idempotent.
    async fn lease_give(&self, name: &str, holder: &str) -> Result<bool, CatalogError>;

    /// Returns once nobody holds the lease: it was given, or has run out. Somebody else may have
    /// taken it since. Without a limit of its own: who waits says how long.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    async fn lease_over(&self, name: &str) -> Result<(), CatalogError>;
}

/// What every adapter checks first.
pub(crate) fn check_lease(
    name: &str,
    holder: &str,
    note: &str,
    lasts: Duration,
) -> Result<(), CatalogError> {
    let is_name = |text: &str| (1..=LEASE_NAME_BYTES_MAX).contains(&text.len());
    if !is_name(name) || !is_name(holder) {
        return Err(CatalogError::Limit {
            what: "the name of a lease or of its holder",
            limit: "1 to 200 bytes",
        });
    }
    if note.len() > LEASE_NOTE_BYTES_MAX {
        return Err(CatalogError::Limit {
            what: "the note of a lease",
            limit: "1024 bytes",
        });
    }
    if !(Duration::from_millis(1)..=LEASE_LASTS_MAX).contains(&lasts) {
        return Err(CatalogError::Limit {
            what: "the duration of a lease",
            limit: "a millisecond to an hour",
        });
    }
    Ok(())
}
