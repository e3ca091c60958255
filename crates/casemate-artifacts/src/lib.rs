//! Templates, kept files and uploads in a bucket: S3, Google Cloud Storage, Azure Blob, or a folder.
//!
//! An artifact is a stream of bytes. It is cut into pieces by its content, each stored once under its
//! digest, and a manifest that lists them. What a caller keeps in its rows is an [`ArtifactRef`],
//! the manifest's digest: everything else is checked against it.
//!
//! ```text
//! put:  stream ── cut ── digest ── there already? ── compress ── piece ──┐ … manifest ──▶ ArtifactRef
//! open: ArtifactRef ── manifest, checked ──▶ Artifact ── read_at, reader ── cache ── bucket, checked
//! ```
//!
//! Owns names in the bucket, the two formats, the local cache, what is removed when, and what clouds
//! answer. Must not know sandboxes, templates, rows or the API; whose an artifact is, is a [`Scope`]
//! of the caller's. A bucket is believed in nothing but presence: what it gives is bounded before it
//! is read and checked before it is handed out.
//!
//! # What callers do
//!
//! The row with the reference is written after [`Artifacts::put`] has answered, and deleted before
//! [`Artifacts::remove`] is called. A put whose row was never written leaves a manifest, which
//! [`Artifacts::manifests`] lists with its age. [`Artifacts::sweep`] takes pieces that no manifest
//! names; `names.rs` says why it may run beside puts.
//!
//! On a versioned bucket what is removed stays as an old version until the bucket's own rule takes it
//! (30 days in the guide), which is how a mistake can be undone: nothing here reads old versions.
//! Uploads in parts that a crash left are for the bucket's own rule too.

mod bucket;
mod cache;
mod clock;
mod config;
mod cut;
mod digest;
mod error;
mod manifest;
mod names;
mod piece;
mod place;
mod store;

// The emulators of `tests/it` are the unit tests' too.
#[cfg(test)]
#[path = "../tests/it/emulator.rs"]
#[allow(dead_code, reason = "what only the others use")]
mod emulator;

pub use bucket::{BucketError, TlsError};
pub use cache::CacheError;
pub use config::{
    ArtifactsConfig, BucketConfig, BucketCredentials, CacheConfig, Encryption, Environment,
    Patience, Secret,
};
pub use digest::{Digest, NotADigest};
pub use error::{ArtifactError, Cause, Corruption, Operation, What};
pub use manifest::{ARTIFACT_BYTES_MAX, Kind, NAME_LEN_MAX, NotAManifest};
pub use names::{NotAScope, PERIOD, Scope};
pub use piece::Wrong;
pub use place::{CloudKind, NotAPlace, Place};
pub use store::{
    Artifact, ArtifactReader, ArtifactRef, Artifacts, ManifestEntry, NotARef, OpenError, Put,
    PutRequest, SweepLimits, Swept,
};
