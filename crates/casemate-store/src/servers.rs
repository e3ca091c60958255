//! Servers of the control plane that share one database: who is there.
//!
//! Times here and in [`crate::Leases`] are the database's own: clocks of servers may differ.

use std::time::Duration;

use async_trait::async_trait;
use casemate_types::Timestamp;

use crate::StoreError;

/// What a server says of itself, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerBeat {
    /// Another one after each start of its process.
    pub id: String,
    /// Where others reach it, if they can.
    pub address: Option<String>,
    pub version: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub id: String,
    pub address: Option<String>,
    pub version: String,
    /// When it was first heard of.
    pub since: Timestamp,
    /// When it was last heard of.
    pub seen_at: Timestamp,
}

#[async_trait]
pub trait Servers {
    /// Notes that it is there; when, by the clock by which all of this is counted.
    async fn server_beat(&self, beat: &ServerBeat) -> Result<Timestamp, StoreError>;

    /// Notes that it goes; one that is not there is no error.
    async fn server_leave(&self, id: &str) -> Result<(), StoreError>;

    /// Those that were heard of within this time, by id.
    async fn server_list(&self, seen_within: Duration) -> Result<Vec<Server>, StoreError>;

    /// What that clock says.
    async fn server_clock(&self) -> Result<Timestamp, StoreError>;

    /// Removes those of which nothing was heard for this long; how many.
    async fn server_forget(&self, unseen_for: Duration) -> Result<u64, StoreError>;
}
