//! The port of kept files.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use async_trait::async_trait;
use casemate_types::{LayerId, Portable, SandboxId, SnapshotId};

use crate::{CarryError, RuntimeRecord, SnapshotError};

/// A snapshot that was taken of a running sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// How long its processes stood still for it.
    pub frozen: Duration,
    /// What it holds, whoever else shares that.
    pub bytes: u64,
    /// What was in an earlier snapshot of the same sandbox, or in the one that it began with, lies on
    /// the disk once; else each has its own.
    pub is_shared: bool,
}

/// Something that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// That it takes.
    pub bytes: u64,
    /// Since its last [`Snapshots::note_use`], or about so long.
    pub unused_for: Duration,
}

/// Keeps what sandboxes wrote, beyond them. A snapshot is files only; a sandbox begins with it when
/// [`CreateSpec::files`](crate::CreateSpec) names it, with a copy of its own.
///
/// What is acknowledged survives a power loss, but for removals: what was removed may be there
/// again. A call that a crash cuts off has either happened or left nothing but what
/// [`Runtime::sweep`](crate::Runtime::sweep) removes: a snapshot is never half there, and one whose
/// files were kept under it cannot be adopted. Snapshots are removed by [`Snapshots::remove`] and by a purge alone.
///
/// For one sandbox, one snapshot and one layer, the caller serializes the calls. No method is cancel-safe.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Keeps the files of a sandbox as they are at one moment. A running one stands still for that
    /// moment and goes on, also on an error; a frozen one stays frozen. A crash may leave a running
    /// one frozen: whoever adopts it thaws what should run.
    /// [`SnapshotError::Exists`] when there is a snapshot of this name.
    async fn take(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<Taken, SnapshotError>;

    /// Ends all processes of a sandbox, running, frozen, or gone by themselves since, and keeps its
    /// files: what [`Runtime::stop`](crate::Runtime::stop) would remove of them becomes the
    /// snapshot. [`SnapshotError::Capacity`] and [`SnapshotError::Exists`]: it is as it was. After
    /// another error it may stand still for good, or have no processes, and the call is repeated.
    async fn suspend(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<(), SnapshotError>;

    /// Keeps what is left of a sandbox that does not run any more (its host was restarted, or a
    /// [`Snapshots::suspend`] was cut off), between its failed adoption and the sweep, which would
    /// remove it. `false`: nothing is left of it. Idempotent: a snapshot that is there is `true`.
    async fn salvage(
        &self,
        record: &RuntimeRecord,
        snapshot: &SnapshotId,
    ) -> Result<bool, SnapshotError>;

    /// Whether there is a snapshot of this name. Cheap: nothing is measured.
    async fn has(&self, snapshot: &SnapshotId) -> Result<bool, SnapshotError>;

    /// Removes a snapshot; its space comes back soon after. Sandboxes that began with it keep their
    /// files. Idempotent: one that is not there is `Ok`.
    async fn remove(&self, snapshot: &SnapshotId) -> Result<(), SnapshotError>;

    /// Makes of a snapshot a read-only layer on this machine, to lie below sandboxes
    /// ([`CreateSpec::lowers`](crate::CreateSpec)) over the layers that its sandbox had: the bytes
    /// that it takes. The snapshot stays. Takes time with what is in it. A layer of this name that
    /// is there is left as it is, whether or not there is such a snapshot.
    /// [`SnapshotError::NoSnapshot`]; [`SnapshotError::Capacity`] when the disk of layers is full.
    /// On an error nothing of the layer is left.
    async fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> Result<u64, SnapshotError>;

    /// Removes what [`Snapshots::seal`] made: it is not there any more on return, whatever a crash
    /// or an error leaves of its files. The caller knows that no sandbox has it below it.
    /// Idempotent: one that is not there is `Ok`.
    async fn remove_layer(&self, layer: &LayerId) -> Result<(), SnapshotError>;

    /// All that [`Snapshots::seal`] made and nobody removed.
    async fn layers(&self) -> Result<BTreeSet<LayerId>, SnapshotError>;

    /// All that are kept, with the bytes that removing each would give back, at most: less where
    /// others share them and that is not counted. `None` where nothing is known.
    async fn list(&self) -> Result<BTreeMap<SnapshotId, Option<u64>>, SnapshotError>;

    /// What one of them takes, and for how long nobody has used it. `None`: it is not here. Takes time
    /// with what is in it.
    async fn measure(&self, what: &Portable) -> Result<Option<Measured>, SnapshotError>;

    /// Notes for a later process that these are used now, as far as that works.
    async fn note_use(&self, whats: &[Portable]);

    /// Writes what is kept here to a stream, of which [`Snapshots::unpack`] makes the same, here or on
    /// another machine; what did not change gives the same bytes. All of it is written when this
    /// returns `Ok`: whoever reads cannot tell by the stream. It must not be removed meanwhile.
    /// [`CarryError::NotHere`]; [`CarryError::Stream`] when the other end leaves, or takes nothing for
    /// a minute.
    ///
    /// A call that is dropped goes on until the other end leaves.
    async fn pack(&self, what: &Portable, to: UnixStream) -> Result<(), CarryError>;

    /// Keeps, or seals, what another one packed; for good on return: the bytes that it takes. What is
    /// here already stays as it is, and nothing is read. The stream may come from another machine: what
    /// is no packed tree is [`CarryError::Stream`]. [`CarryError::Capacity`]. On an error nothing is
    /// left. As above if it is dropped.
    async fn unpack(&self, what: &Portable, from: UnixStream) -> Result<u64, CarryError>;
}
