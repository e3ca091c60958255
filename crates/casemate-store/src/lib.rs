//! Durable records: what should exist and what was promised (decision 4).
//!
//! Owns the ports ([`Teams`], [`Users`], [`Keys`], [`Templates`], [`Builds`], [`BuildCache`],
//! [`Sandboxes`], [`Snapshots`], [`Idempotency`], [`Settings`], [`Servers`], [`Leases`], [`Nodes`],
//! [`JoinTokens`], [`Artifacts`], together [`Store`]), their rows, and
//! the adapter to SQLite and PostgreSQL with its migrations. It must not know HTTP, nodes, or who may do what: it keeps
//! and finds, callers decide.
//!
//! What holds for every port:
//! - A lookup that finds nothing is `Ok(None)`.
//! - On an error nothing was written, except for [`StoreError::Unavailable`] from a write, after
//!   which either is possible.
//! - Times are kept to the microsecond; what is finer is cut off.
//! - In SQLite sandboxes, idempotency keys, servers, leases, `last_used` and its like in the build cache, and counts
//!   of sandboxes survive the death of the process; all else survives a power loss too once the
//!   call has returned. In PostgreSQL all survives the death of the server and a power loss, but for
//!   the last moment's `last_used` and its like, counts of sandboxes, and when servers were seen.
//! - Several processes may use one PostgreSQL database at once, and what they do is as if they had
//!   done it one after the other.

pub mod artifacts;
pub mod build_cache;
pub mod builds;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod id;
pub mod idempotency;
pub mod join_tokens;
pub mod keys;
pub mod leases;
pub mod nodes;
mod rows;
pub mod sandboxes;
pub mod servers;
pub mod settings;
pub mod snapshots;
pub mod sql;
pub mod teams;
pub mod templates;
#[cfg(feature = "testing")]
pub mod testing;
pub mod users;

use async_trait::async_trait;

/// How a PostgreSQL database is spoken to.
pub use casemate_sql::postgres;

pub use artifacts::{Artifacts, StoredArtifact};
pub use build_cache::{
    BuildCache, BuiltBytes, CacheKey, CacheTrim, CachedLayer, Dropped, TrimMode, Trimmed, Upload,
};
pub use builds::{
    BuildBegun, BuildRecord, BuildRequested, Builds, CreatedCursor, NewBuild, TagAssignment,
    TagEvent, TemplateOrder, TemplateSummary,
};
pub use error::StoreError;
pub use id::{BuildId, KeyId};
pub use idempotency::{Begun, Idempotency, KeyClaim, RequestHash};
pub use join_tokens::{JoinRole, JoinToken, JoinTokenHash, JoinTokens, NewJoinToken};
pub use keys::{AccessToken, ApiKey, KeyHash, KeyMask, Keys};
pub use leases::{Lease, LeaseTaken, Leases};
pub use nodes::{Node, NodeJoin, NodeStanding, Nodes};
pub use sandboxes::{AliveSandbox, Cursor, NewRun, Order, Page, Sandbox, SandboxFilter, Sandboxes};
pub use servers::{Server, ServerBeat, Servers};
pub use settings::Settings;
pub use snapshots::{
    NewSnapshot, PlacedSnapshot, Snapshot, SnapshotCursor, SnapshotFilter, Snapshots,
    TemplateDeleted,
};
pub use sql::{ConnectError, CopyError, OpenError, Schema, SqlStore, SqliteStore, copy, migrate};
pub use teams::{LimitOverrides, Standing, Team, Teams};
pub use templates::{Build, NodeReport, Resolution, Template, TemplateSource, Templates};
pub use users::{Membership, User, Users};

/// All ports over one database.
#[async_trait]
pub trait Store:
    Teams
    + Users
    + Keys
    + Templates
    + Builds
    + BuildCache
    + Sandboxes
    + Snapshots
    + Idempotency
    + Settings
    + Servers
    + Leases
    + Nodes
    + JoinTokens
    + Artifacts
    + Send
    + Sync
{
    /// Whether the database answers; for readiness.
    async fn ping(&self) -> Result<(), StoreError>;
}
