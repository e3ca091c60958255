//! What builds left for the next ones: states of file systems by the hash of the recipe that led to
//! them, and archives that clients uploaded. Both belong to a team, and no other ever finds them.

use std::time::Duration;

use async_trait::async_trait;
use casemate_types::{BuildContext, Distribution, LayerId, SnapshotId, TeamId, Timestamp};

use crate::StoreError;

/// When something was used is noted again once the last note is this old.
pub const USED_STEP: Duration = Duration::from_secs(60);

/// What the contexts of a team's cached layers take together at most, bytes; each has all variables of
/// its recipe. Beyond it [`BuildCache::built_trim`] removes the least recently used.
pub const CONTEXTS_BYTES_MAX: u64 = 64 << 20;

/// SHA-256 of a recipe so far, or the client's name of an archive: 64 hexadecimal characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(String);

impl CacheKey {
    /// Lower-case hexadecimal only.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        (text.len() == 64 && text.bytes().all(is_hex)).then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A state of a file system at the nodes, and how commands go on in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedLayer {
    /// Read-only layers, topmost first; at least one.
    pub layers: Vec<String>,
    /// What was written above them.
    pub files: Option<SnapshotId>,
    pub context: BuildContext,
    pub distribution: Distribution,
    /// What all files of it take together, MiB; 0 where nobody looked.
    pub size_mib: u32,
}

/// An uploaded archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Of its content: its name where it lies, checked on every read. 64 hexadecimal characters.
    pub sha256: String,
    pub bytes: u64,
    /// The bucket's reference; `None`: only the server that took it has it.
    pub artifact: Option<String>,
}

/// What something that a team's builds made takes at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltBytes {
    /// A read-only layer's, or that of kept files.
    pub name: String,
    /// What nothing takes that is kept longer.
    pub bytes: u64,
    /// All that it holds, with what it shares.
    pub holds: u64,
}

/// A note that no row names is kept for so long: the row may be on its way.
pub const NOTE_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// What of a team's goes that only makes its next builds faster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTrim {
    pub team: TeamId,
    /// Cached layers that were last used before, and builds that nothing referred to since.
    pub before: Timestamp,
    /// Uploads that were last used before.
    pub uploads_before: Timestamp,
    /// Builds that are under way rest on these: what names them stays.
    pub spared_files: Vec<SnapshotId>,
    pub spared_layers: Vec<LayerId>,
    pub mode: TrimMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrimMode {
    /// Only looks at what would go.
    Rehearse,
    CarryOut,
}

/// What went with a [`CacheTrim`], or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Builds of templates.
    pub builds: u64,
    /// Cached layers: results of steps.
    pub steps: u64,
    /// Kept files that nothing names any more.
    pub files: Vec<SnapshotId>,
    /// Read-only layers that nothing names any more.
    pub layers: Vec<LayerId>,
    pub uploads: u64,
    /// Of contents that no upload of the team has any more.
    pub upload_bytes: u64,
}

/// What is not needed any more, once its rows are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many rows are gone, those that were replaced among them.
    pub rows: u64,
    /// Kept files that neither a cached layer nor a snapshot names any more.
    pub files: Vec<SnapshotId>,
}

#[async_trait]
pub trait BuildCache {
    /// Finds a layer and notes that it was used, to the [`USED_STEP`]. It is there as long as its row is: whoever removes
    /// what it names removes the row first.
    async fn layer_find(
        &self,
        team: &TeamId,
        key: &CacheKey,
        at: Timestamp,
    ) -> Result<Option<CachedLayer>, StoreError>;

    /// Writes a layer; one of the same key is replaced, and the files that nothing names any more are
    /// answered.
    async fn layer_put(
        &self,
        team: &TeamId,
        key: &CacheKey,
        layer: &CachedLayer,
        at: Timestamp,
    ) -> Result<Dropped, StoreError>;

    /// Removes a row whose layer was found to be lost at the nodes; one that says something else by
    /// now stays, and none is no error.
    async fn layer_forget(
        &self,
        team: &TeamId,
        key: &CacheKey,
        layer: &CachedLayer,
    ) -> Result<Dropped, StoreError>;

    /// Removes rows of layers that were last used before `before`, and of what is left the least
    /// recently used beyond `rows_max` of each team; and notes of bytes that nobody names and that are
    /// older than `before` by [`NOTE_KEPT_FOR`].
    async fn layer_expire(&self, before: Timestamp, rows_max: u32) -> Result<Dropped, StoreError>;

    /// Notes what a layer or kept files take, before a row names them; a later note of the name holds.
    async fn built_note(
        &self,
        team: &TeamId,
        built: &BuiltBytes,
        at: Timestamp,
    ) -> Result<(), StoreError>;

    /// What [`BuiltBytes::holds`] was noted of this name.
    async fn built_holds(&self, name: &str) -> Result<Option<u64>, StoreError>;

    /// Bytes that were noted of the layers that the team's ready builds need, and of these.
    async fn built_needed(&self, team: &TeamId, layers: &[String]) -> Result<u64, StoreError>;

    /// Removes rows of a team's cached layers, the least recently used first, until their contexts take
    /// no more than [`CONTEXTS_BYTES_MAX`], and until what they and the team's ready builds name takes
    /// no more than `bytes_max`, by what was noted; for this rows of which nothing would come back
    /// stay, and so there may be more.
    async fn built_trim(&self, team: &TeamId, bytes_max: u64) -> Result<Dropped, StoreError>;

    /// Which of these read-only layers some build that is ready, some cached layer, or some sandbox
    /// that is not dead (by its build) needs.
    async fn layer_wanted(&self, layers: &[LayerId]) -> Result<Vec<LayerId>, StoreError>;

    /// Removes builds that nothing refers to ([`crate::Builds::build_forget_unused`]), then cached
    /// layers, then uploads of a team, in one transaction. A cached layer stays, however old, that
    /// names nothing but what builds that are ready and snapshots name as well: it costs nothing.
    async fn cache_trim(&self, trim: &CacheTrim) -> Result<Trimmed, StoreError>;

    /// Finds an upload and notes that it was used, to the [`USED_STEP`].
    async fn upload_find(
        &self,
        team: &TeamId,
        key: &CacheKey,
        at: Timestamp,
    ) -> Result<Option<Upload>, StoreError>;

    /// Writes an upload; the last one of a key holds.
    async fn upload_put(
        &self,
        team: &TeamId,
        key: &CacheKey,
        upload: &Upload,
        at: Timestamp,
    ) -> Result<(), StoreError>;

    /// … unless its content is new to the team and all contents would take more than `bytes_max` with
    /// it: whether it was written. Of several at once, at whichever servers, as many are as fit.
    async fn upload_put_within(
        &self,
        team: &TeamId,
        key: &CacheKey,
        upload: &Upload,
        at: Timestamp,
        bytes_max: u64,
    ) -> Result<bool, StoreError>;

    /// Removes rows of uploads that were last used before `before`; how many.
    async fn upload_expire(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Which of these contents some upload of the team has.
    async fn upload_wanted(
        &self,
        team: &TeamId,
        sha256: &[String],
    ) -> Result<Vec<String>, StoreError>;

    /// Bytes that a team's uploads take together; equal contents count once.
    async fn upload_bytes(&self, team: &TeamId) -> Result<u64, StoreError>;
}
