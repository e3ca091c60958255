//! Layers made of what was kept: copies of upper folders, where all layers of templates lie.
//!
//! ```text
//! seal:    copy as a draft ─▶ sync ─▶ rename ─▶ sync the folder
//! remove:  rename aside ─▶ delete
//! ```
//!
//! A draft, and what is being deleted, has the layer's name with a dot and a name of this process
//! behind it, which no layer has: a start removes those of earlier processes. Several are made side by
//! side, and each removes what is its own alone.
//!
//! What was an upper folder becomes a lower one. Of the overlay's own attributes a lower layer needs
//! those that say what it hides and where it was moved from (`opaque`, `whiteout`, `redirect`); and
//! `origin` of folders, which says nothing there but that the folder was over another one: without
//! it the kernel takes a folder that nothing is merged with for one without whiteouts, and lists
//! them as files. The others speak of an upper folder, or of files by numbers that mean nothing in a
//! copy: `origin` of files, `impure` (that it holds files that have one), `nlink` and `upper` (of an
//! index), `uuid` (of the mount), `protattr` and `metacopy`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use casemate_failpoint::{self as failpoint, Point};
use casemate_types::{LayerId, SnapshotId};
use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs, syncfs};

use super::copy::{self, Manner};
use super::{INNER, Pool, names, plain, still};

/// What names of sealed layers, and of all that becomes or was one, begin with.
const PREFIX: &str = "t-";
/// Layers that are copied side by side; they share one disk with all that sandboxes do.
pub const SEALS_AT_ONCE: usize = 2;
/// How much one writes between two looks at the disk.
const LOOK_EVERY: u64 = 16 << 20;
/// How much of one is in memory alone at most: another that is done waits until all is on the disk.
const SYNC_EVERY: u64 = 64 << 20;

impl Pool {
    /// Makes a layer of a snapshot, for good on return: the bytes that it takes. One that is there
    /// stays as it is. `NotFound`: there is no such snapshot; `StorageFull`: the disk has no more
    /// than must stay free. On an error nothing is left. Takes as long as copying does.
    pub fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> io::Result<u64> {
        let place = self.sealed_at(layer);
        if place.is_dir() {
            return still::bytes_below(&place);
        }
        if !self.is_kept(snapshot) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let from = self.kept_at(snapshot).join(INNER[0]);
        self.seal_by(layer, |to, links, sealing| {
            copy::tree(&from, to, links, sealing)
        })
    }

    /// Makes a layer of what `make` puts into a draft (and, beside it, what it needs on the way): the
    /// bytes that it takes. On an error nothing is left.
    pub(super) fn seal_by(
        &self,
        layer: &LayerId,
        make: impl FnOnce(&Path, &Path, &mut Sealing<'_>) -> io::Result<()>,
    ) -> io::Result<u64> {
        let (draft, links) = (self.beside(layer), self.beside(layer));
        let made = self.draft(&draft, &links, make);
        let put = made.and_then(|bytes| {
            failpoint::hit(Point::SealDrafted);
            self.put_in_place(&draft, layer).map(|()| bytes)
        });
        let put = put.inspect_err(|_| {
            [draft, links]
                .iter()
                .for_each(|left| self.delete_beside(left))
        })?;
        failpoint::hit(Point::SealPlaced);
        Ok(put)
    }

    fn draft(
        &self,
        draft: &str,
        links: &str,
        make: impl FnOnce(&Path, &Path, &mut Sealing<'_>) -> io::Result<()>,
    ) -> io::Result<u64> {
        let layers = self.layers_dir();
        let mut sealing = Sealing {
            folder: &layers,
            reserve: self.config.disk_reserve,
            unseen: LOOK_EVERY,
            unsynced: 0,
        };
        let to = layers.join(draft);
        make(&to, &layers.join(links), &mut sealing)?;
        syncfs(File::open(&layers)?)?;
        still::bytes_below(&to)
    }

    fn put_in_place(&self, draft: &str, layer: &LayerId) -> io::Result<()> {
        let layers = self.layers_dir();
        let place = self.sealed_at(layer);
        renameat_with(CWD, layers.join(draft), CWD, &place, RenameFlags::NOREPLACE)?;
        let synced = File::open(&layers)?.sync_all();
        synced.inspect_err(|_| {
            // Whether its name lasts is not known: whoever asked is told that there is none.
            let _ = self.remove_sealed(layer);
        })
    }

    /// Removes a sealed layer. Idempotent. It is no layer any more as soon as it is renamed; what
    /// cannot be deleted goes with the next start.
    pub fn remove_sealed(&self, layer: &LayerId) -> io::Result<()> {
        let aside = self.beside(layer);
        match std::fs::rename(self.sealed_at(layer), self.layers_dir().join(&aside)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        failpoint::hit(Point::SealRemoving);
        self.delete_beside(&aside);
        Ok(())
    }

    /// All sealed layers.
    pub fn sealed(&self) -> io::Result<BTreeSet<LayerId>> {
        let names = names(&self.layers_dir())?;
        Ok(names.iter().flat_map(|name| LayerId::parse(name)).collect())
    }

    /// Deletes what earlier processes left of layers that they were sealing or removing.
    pub fn sweep_sealed(&self) -> io::Result<()> {
        let ours = self.prefix();
        self.delete_where(|name| match name.split_once('.') {
            Some((layer, rest)) => layer.starts_with(PREFIX) && !rest.starts_with(&ours),
            None => false,
        })
    }

    /// Deletes all sealed layers. However deep a sandbox nested its folders: what deletes whole
    /// trees elsewhere stops at that.
    pub(super) fn delete_sealed(&self) -> io::Result<()> {
        self.delete_where(|name| name.starts_with(PREFIX))
    }

    /// Deletes what [`Pool::beside`] named, if it is there. What cannot be deleted goes with the next
    /// start.
    fn delete_beside(&self, name: &str) {
        match plain::delete_flat(&self.layers_dir(), name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let cause = error.to_string();
                tracing::warn!(cause, "a part of layer {name} cannot be deleted yet");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn delete_where(&self, doomed: impl Fn(&str) -> bool) -> io::Result<()> {
        let layers = self.layers_dir();
        let mut failed = Ok(());
        for name in names(&layers)?.iter().filter(|name| doomed(name)) {
            // One that resists must not keep all others from going.
            failed = failed.and(match plain::delete_flat(&layers, name) {
                // It lay in another of them, which was taken apart.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            });
        }
        failed
    }

    pub(super) fn sealed_at(&self, layer: &LayerId) -> PathBuf {
        self.layers_dir().join(layer.as_str())
    }

    /// A name that nothing has.
    fn beside(&self, layer: &LayerId) -> String {
        format!("{layer}.{}", self.unused_name().0)
    }
}

/// A copy that becomes a lower layer, on a disk that others need too.
pub(super) struct Sealing<'a> {
    folder: &'a Path,
    /// Of the disk, what stays free, bytes.
    reserve: u64,
    /// Written since it was looked at.
    unseen: u64,
    /// Written since all of it went to the disk.
    unsynced: u64,
}

impl Manner for Sealing<'_> {
    fn keeps(&self, attribute: &[u8], is_folder: bool) -> bool {
        is_for_lower_layers(attribute, is_folder)
    }

    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        self.unseen = self.unseen.saturating_add(bytes);
        if self.unseen < LOOK_EVERY {
            return Ok(());
        }
        self.unsynced = self.unsynced.saturating_add(self.unseen);
        self.unseen = 0;
        if self.unsynced >= SYNC_EVERY {
            syncfs(File::open(self.folder)?)?;
            self.unsynced = 0;
        }
        let disk = statvfs(self.folder)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        // All write as much before they look again.
        let unseen = LOOK_EVERY * SEALS_AT_ONCE as u64;
        match free < self.reserve.saturating_add(unseen) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

/// See the module.
pub(super) fn is_for_lower_layers(attribute: &[u8], is_folder: bool) -> bool {
    match attribute.strip_prefix(b"trusted.overlay.") {
        None | Some(b"opaque" | b"redirect" | b"whiteout") => true,
        Some(b"origin") => is_folder,
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_upper_folders_do_not_travel() {
        let check = |name: &str, files: bool, folders: bool| {
            let kept = [false, true].map(|folder| is_for_lower_layers(name.as_bytes(), folder));
            assert_eq!(kept, [files, folders], "{name}");
        };
        for name in ["opaque", "redirect", "whiteout"] {
            check(&format!("trusted.overlay.{name}"), true, true);
        }
        check("trusted.overlay.origin", false, true);
        for name in [
            "impure", "nlink", "upper", "uuid", "protattr", "metacopy", "new",
        ] {
            check(&format!("trusted.overlay.{name}"), false, false);
        }
        for name in ["security.capability", "user.overlay.origin", "user.note"] {
            check(name, true, true);
        }
    }
}
