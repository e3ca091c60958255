//! Layers that are kept beyond their sandboxes, by the names of snapshots.
//!
//! A snapshot is made where layers are made, under a layer's name: what a crash leaves of it there
//! is swept like any layer of an earlier process. Only whole, and only once its content survives a
//! power loss, it is renamed to its place, in which nothing is swept, emptied or written. It has no
//! limit; whoever begins with it gets a copy with a limit of its own.
//!
//! The rename is what can fail for want of room, and changes nothing then.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use casemate_failpoint::{self as failpoint, Point};
use casemate_types::SnapshotId;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with, syncfs};

use super::{INNER, Layer, Pool, TRASH, names};

/// Below the pool's root.
pub(super) const KEPT: &str = "kept";

impl Pool {
    /// Whether there is a snapshot of that name.
    pub fn is_kept(&self, snapshot: &SnapshotId) -> bool {
        self.kept_at(snapshot).join(INNER[0]).is_dir()
    }

    /// All snapshots, with the bytes that each holds or that would come back without it, whichever
    /// the file system tells; `None` where it tells neither.
    pub fn kept(&self) -> io::Result<BTreeMap<SnapshotId, Option<u64>>> {
        let names = names(&self.root.join(KEPT))?;
        let ids = names.iter().filter_map(|name| SnapshotId::parse(name).ok());
        let measured = ids.map(|id| {
            let bytes = self.layers.kept_bytes(&self.kept_at(&id)).unwrap_or(None);
            (id, bytes)
        });
        Ok(measured.collect())
    }

    /// Bytes that a snapshot holds, whoever else shares them.
    pub fn holds(&self, snapshot: &SnapshotId) -> io::Result<u64> {
        self.layers.holds_bytes(&self.kept_at(snapshot))
    }

    /// Whether a snapshot shares with its sandbox, and so with the next one of it, what neither wrote
    /// anew.
    pub fn snapshots_share(&self) -> bool {
        self.layers.copies_share()
    }

    /// A copy of a layer as it is now. Where its sandbox runs, whoever calls has frozen it.
    pub fn copy(&self, layer: &Layer) -> io::Result<Layer> {
        self.copy_from(&self.writable_dir().join(&layer.0))
    }

    /// A layer with what a snapshot holds, under a limit that counts it. `NotFound`: there is none.
    pub fn begin_with(&self, snapshot: &SnapshotId, bytes: u64) -> io::Result<Layer> {
        let layer = self.copy_from(&self.kept_at(snapshot))?;
        self.limit(&layer, bytes)
            .inspect_err(|_| self.discard(&layer))?;
        Ok(layer)
    }

    fn copy_from(&self, from: &Path) -> io::Result<Layer> {
        let layer = self.unused_name();
        let folder = self.writable_dir();
        self.layers
            .copy(from, &folder, &layer.0)
            .and_then(|()| new_work(&folder.join(&layer.0)))
            // Of a copy that is not whole; nothing where none was begun.
            .inspect_err(|_| self.discard(&layer))?;
        Ok(layer)
    }

    /// Writes to disk what is only in memory. May take long, while others write much.
    pub fn sync(&self) -> io::Result<()> {
        let root = rustix::fs::open(&self.root, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(syncfs(&root)?)
    }

    /// Makes a layer the snapshot in which nothing is written any more: its sandbox stands still and
    /// is ended next, or has ended. `AlreadyExists`: there is one of that name. On an error the
    /// layer is where it was, without a limit; or in its place already: then [`Pool::settle`] is
    /// left to do.
    pub fn keep(&self, layer: &Layer, snapshot: &SnapshotId) -> io::Result<()> {
        self.sync()?;
        self.put_by(layer, snapshot)?;
        // Not before: where it has to stay, the note of what it began with is right.
        if let Err(error) = self.layers.note_size(&self.kept_at(snapshot)) {
            let cause = error.to_string();
            tracing::warn!(snapshot.id = %snapshot, cause, "the size of {snapshot} is not known");
        }
        self.settle()
    }

    /// The same with what [`Pool::copy`] made. On an error nothing of it is left.
    pub fn keep_copy(&self, copy: &Layer, snapshot: &SnapshotId) -> io::Result<()> {
        let place = self.writable_dir().join(&copy.0);
        let synced = self.layers.sync_copy(&place);
        let noted = synced.and_then(|()| self.layers.note_size(&place));
        let put = noted.and_then(|()| self.put_by(copy, snapshot));
        put.inspect_err(|_| self.discard(copy))?;
        self.settle().inspect_err(|_| {
            // What fails now is found by whoever looks for what nobody wants.
            let _ = self.forget(snapshot);
        })
    }

    fn put_by(&self, layer: &Layer, snapshot: &SnapshotId) -> io::Result<()> {
        let place = self.writable_dir().join(&layer.0);
        // One that is full could not even be noted.
        self.layers.limit(&place, u64::MAX)?;
        let kept = self.kept_at(snapshot);
        Ok(renameat_with(
            CWD,
            &place,
            CWD,
            &kept,
            RenameFlags::NOREPLACE,
        )?)
    }

    /// Waits until what was kept, and that it was, survives a power loss. Its error is never one of
    /// room: that was found.
    pub fn settle(&self) -> io::Result<()> {
        let kept = self.layers.commit(&self.root.join(KEPT));
        kept.map_err(io::Error::other)
    }

    /// Removes a snapshot; its space comes back in the background. Idempotent. After a power loss it
    /// may be there again, and is found by whoever looks for what nobody wants.
    pub fn forget(&self, snapshot: &SnapshotId) -> io::Result<()> {
        let aside = self.unused_name();
        let trash = self.root.join(TRASH);
        let deleted = match std::fs::rename(self.kept_at(snapshot), trash.join(&aside.0)) {
            Ok(()) => {
                failpoint::hit(Point::SnapshotRemoving);
                self.layers.delete(&trash, &aside.0)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // The kernel keeps room for deleting, but not for moving.
            Err(_) => self.layers.delete(&self.root.join(KEPT), snapshot.as_str()),
        };
        match deleted {
            // Whoever empties the trash was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        Ok(())
    }

    pub(super) fn kept_at(&self, snapshot: &SnapshotId) -> PathBuf {
        self.root.join(KEPT).join(snapshot.as_str())
    }
}

/// Empties the overlay's own folder of a layer that nobody uses; it refuses one that was used before.
fn new_work(layer: &Path) -> io::Result<()> {
    let work = layer.join(INNER[1]);
    match std::fs::remove_dir_all(&work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir(&work),
    }
}
