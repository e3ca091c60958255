//! Images of container registries: found, checked, fetched and read, for builds that say `fromImage`;
//! and images in files, read and written.
//!
//! Owns what is spoken with registries (the OCI distribution protocol, its tokens, AWS's and Google's
//! logins), the cache of layers, and the wall around both. Must not know sandboxes, builds, teams or
//! the API: whose credentials they are is a text of the caller's.
//!
//! Everyone outside is hostile here: a tenant names the registry, the registry names where its tokens
//! and blobs are, and all of it is dialled from the control process on the host's network. So this
//! crate has its own client instead of one that cannot be told where not to go: a name is looked up
//! once, its addresses are checked, and nothing but a checked address is dialled; what is read into
//! memory, and what is unpacked, has a limit before it has a content.
//!
//! ```text
//! resolve: reference ── aliases ── mirrors, registry ──▶ manifest, config ──▶ Image
//! open_archive: a client's file ── layout ──▶ manifest, config ──▶ Image
//! layer:   Image, n ── cache ── download (resumed, shared, verified) ──▶ LayerReader: a plain tar
//! ```

mod archive;
mod cache;
mod config;
mod credentials;
mod digest;
mod download;
mod error;
mod images;
mod layer;
mod reference;
mod registry;
mod resolve;
mod web;

pub use archive::{NewImage, NotAnArchive, PackedLayer};
pub use config::{
    ConfigError, ImagesConfig, Mirror, NotAMirror, Patience, Platform, ProxyConfig, RegistryConfig,
};
pub use credentials::Credentials;
pub use digest::Digest;
pub use download::Progress;
pub use error::{Cause, ImageError};
pub use images::{Image, Images, Layer};
pub use layer::{Compression, LayerReader};
pub use reference::{NotAReference, Reference};
pub use registry::ProcessConfig;
