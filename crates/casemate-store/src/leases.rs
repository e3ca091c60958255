//! Leases: what one of several servers does for all.
//!
//! A holder must stop before its lease runs out, by a clock that it started before it asked. The
//! generation tells later holders from earlier ones wherever that is not enough: it grows whenever a
//! lease begins anew, also for the same holder after it had run out.

use std::time::Duration;

use async_trait::async_trait;

use crate::StoreError;

/// The longest that a lease lasts; one that is asked for longer lasts this long.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseTaken {
    /// The caller has it.
    Held { generation: u64 },
    /// Somebody else has it, for this long at least.
    HeldBy { holder: String, left: Duration },
}

/// A lease that somebody took once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    /// Since its last holder gave it up, or it ran out; `None` while somebody has it.
    pub free_for: Option<Duration>,
}

#[async_trait]
pub trait Leases {
    /// Takes the lease, or prolongs it for who has it: from now on, for as long as `lasts`.
    async fn lease_take(
        &self,
        name: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<LeaseTaken, StoreError>;

    /// Ends the holder's lease; whether it had it.
    async fn lease_give(&self, name: &str, holder: &str) -> Result<bool, StoreError>;

    /// Those whose names begin so, by name.
    async fn lease_list(&self, prefix: &str) -> Result<Vec<Lease>, StoreError>;
}
