//! Writable layers: a stock of bounded folders for what sandboxes write.
//!
//! Two ways behind one port ([`Layers`]): subvolumes of a btrfs image that we make and mount
//! ourselves, where the kernel enforces each one's limit; and plain folders of the data directory
//! where btrfs does not work, bounded file by file only. Used layers are moved aside at once and
//! dealt with later, so a large one never holds up whoever ends a sandbox: one that holds little is
//! emptied and used again, any other is deleted. What is kept beyond its sandbox lies apart
//! (`kept`), and can be made a layer for others (`sealed`).
//!
//! Template layers do *not* live in the image. Subvolumes number their files from the same start,
//! and an overlay of two of them shows different files under one number, which breaks `cp`, `find`
//! and `tar`. They are ordinary folders of the data directory ([`Pool::layers_dir`]); on different
//! file systems the overlay keeps numbers apart.
//!
//! Must not know sandboxes or how layers are mounted.

mod backing;
mod copy;
mod image;
mod kept;
mod measure;
mod pack;
mod packed;
mod plain;
mod portable;
mod sealed;
mod still;
mod subvolumes;
mod unpack;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use casemate_failpoint::{self as failpoint, Point};
use casemate_runtime::DiskLimit;

use crate::step::{Step, StepError};
use backing::Backing;
pub use backing::Room;
pub use sealed::SEALS_AT_ONCE;

/// Below the pool's root: layers in stock and in use, and those that wait for deletion.
const IN_USE: &str = "w";
const TRASH: &str = "x";
/// What a layer consists of.
const INNER: [&str; 2] = ["upper", "work"];

/// What a used layer may hold to be emptied: more than a sandbox writes that ran a few commands.
/// Taking that away costs less than deleting the layer does. The kernel's accounting follows within
/// half a minute: until then it may show so much of whoever had the layer before.
const EMPTIED_ENTRIES_MAX: usize = 256;
const EMPTIED_BYTES_MAX: u64 = 1 << 20;
/// Inode numbers of a layer that is emptied: they are not used again, so their height tells how
/// many files were made in it. Some hundred sandboxes come as far.
const EMPTIED_INODES_MAX: u64 = 4096;

/// Who wants used layers again.
pub struct Again<'a> {
    /// Their new limit.
    pub bytes: u64,
    /// Whether one more is.
    pub wanted: &'a dyn Fn() -> bool,
    /// Gets it, under a name that no layer had before.
    pub put: &'a dyn Fn(Layer),
}

/// What the pool is made from.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Of the data directory; holds the image and template layers.
    pub folder: PathBuf,
    /// Where the image is mounted.
    pub mount: PathBuf,
    /// Size of a new image; by default three fifths of the file system's free space.
    pub bytes_max: Option<u64>,
    /// Of the file system's free space, what the pool never takes, bytes.
    pub disk_reserve: u64,
    /// Nothing in it is wanted: one that cannot be opened is no error.
    pub is_given_up: bool,
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error(transparent)]
    Step(#[from] StepError),
    /// It is there, and cannot be opened: a device, a module of the kernel or descriptors may be
    /// missing for a while.
    #[error(
        "what sandboxes wrote is in {} and cannot be reached; nothing was changed \
         (`casemate down --purge` gives it up)", image.display()
    )]
    Unreachable {
        image: PathBuf,
        #[source]
        source: StepError,
    },
}

/// A writable layer: a folder with `upper` and `work`, on its own under its limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layer(String);

impl Layer {
    /// The layer of that name, if it can be a name.
    pub fn parse(name: &str) -> Option<Self> {
        let fits = name.len() <= 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        (fits && !name.is_empty()).then(|| Self(name.to_owned()))
    }

    pub fn name(&self) -> &str {
        &self.0
    }
}

/// One way to make layers. Folders are those of the pool's root.
trait Layers: Debug + Send + Sync {
    fn disk_limit(&self) -> DiskLimit;
    /// Makes an empty folder with its own accounting.
    fn make(&self, folder: &Path, name: &str) -> io::Result<()>;
    /// Makes a folder with its own accounting and all that `layer` holds; nothing may be written
    /// there meanwhile, where that is not done at once.
    fn copy(&self, layer: &Path, folder: &Path, name: &str) -> io::Result<()>;
    /// Writes what was copied to disk, where copying did not.
    fn sync_copy(&self, layer: &Path) -> io::Result<()>;
    /// Bounds what it may hold, what it began with included; `u64::MAX` is no bound.
    fn limit(&self, layer: &Path, bytes: u64) -> io::Result<()>;
    /// What it holds now.
    fn used_bytes(&self, layer: &Path) -> io::Result<u64>;
    /// What a layer that was kept holds: its note, where it has one.
    fn holds_bytes(&self, layer: &Path) -> io::Result<u64>;
    /// Whether a copy shares content with what it was made of.
    fn copies_share(&self) -> bool;
    /// Notes what it holds for those that begin with it, where nothing else tells them.
    fn note_size(&self, layer: &Path) -> io::Result<()>;
    /// What would come back without it, or what it holds; `None` where neither is known.
    fn kept_bytes(&self, layer: &Path) -> io::Result<Option<u64>>;
    /// Waits until what came to this folder survives a power loss.
    fn commit(&self, kept: &Path) -> io::Result<()>;
    /// Whether emptying one costs less than deleting it and making another.
    fn is_worth_emptying(&self, layer: &Path) -> bool;
    /// Deletes it with all that is in it.
    fn delete(&self, folder: &Path, name: &str) -> io::Result<()>;
    /// Frees what deleted layers left in the accounting, and says whether that was all of it;
    /// `folders` hold the layers that exist; more may be made meanwhile, and one may move from an
    /// earlier of them to a later.
    fn tidy(&self, root: &Path, folders: &[PathBuf]) -> io::Result<bool>;
}

/// The pool of one data directory.
#[derive(Debug)]
pub struct Pool {
    root: PathBuf,
    config: PoolConfig,
    layers: Box<dyn Layers>,
    /// `None` where layers lie on the data directory's own file system.
    backing: Option<Backing>,
    made: AtomicU32,
    /// Retired, and still in their place for want of room to move them.
    stuck: Mutex<BTreeSet<Layer>>,
    /// Retired, and known to have no process any more.
    quiet: Mutex<BTreeSet<Layer>>,
    /// One deletes, or makes new, at a time.
    emptying: Mutex<()>,
    /// Makes names of this process differ from those of earlier ones.
    run: u32,
}

impl Pool {
    /// Opens what the data directory has: its image, or plain folders with something in them. Where
    /// it has neither, an image is made, or plain folders where that does not work.
    pub fn open(config: PoolConfig) -> Result<Self, PoolError> {
        std::fs::create_dir_all(config.folder.join("layers")).step("make the layers' folder")?;
        let plain = config.folder.join("writable");
        let is_plain = holds_any(&plain).step("look into the pool's folders")?;
        let mounted = match image::exists(&config) {
            false if is_plain => None,
            has_image => match image::mount(&config) {
                Ok(mounted) => Some(mounted),
                // What sandboxes wrote must not seem to be gone: it would be given up for good.
                Err(source) if has_image && !is_plain && !config.is_given_up => {
                    let image = image::path(&config);
                    return Err(PoolError::Unreachable { image, source });
                }
                Err(error) => {
                    let cause = error.source.to_string();
                    tracing::warn!(cause, "{error}");
                    None
                }
            },
        };
        let (root, backing, layers): (PathBuf, _, Box<dyn Layers>) = match mounted {
            Some((quotas, backing)) => (
                config.mount.clone(),
                Some(backing),
                Box::new(subvolumes::Subvolumes::new(quotas)),
            ),
            None => {
                tracing::warn!("disk limits are advisory: sandboxes write to plain folders");
                (plain, None, Box::new(plain::Plain))
            }
        };
        for folder in [IN_USE, kept::KEPT, TRASH] {
            std::fs::create_dir_all(root.join(folder)).step("make the pool's folders")?;
        }
        let run = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_nsec as u32;
        Ok(Self {
            root,
            config,
            layers,
            backing,
            made: AtomicU32::new(0),
            stuck: Mutex::default(),
            quiet: Mutex::default(),
            emptying: Mutex::new(()),
            run,
        })
    }

    pub fn disk_limit(&self) -> DiskLimit {
        self.layers.disk_limit()
    }

    /// Where template layers belong: one folder each.
    pub fn layers_dir(&self) -> PathBuf {
        self.config.folder.join("layers")
    }

    /// The folder in which all of it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Layers that are retired and not deleted yet.
    pub fn waiting(&self) -> io::Result<usize> {
        Ok(names(&self.root.join(TRASH))?.len())
    }

    /// The folder that holds writable layers by name.
    pub fn writable_dir(&self) -> PathBuf {
        self.root.join(IN_USE)
    }

    /// Makes an empty layer with a limit.
    pub fn make(&self, bytes: u64) -> io::Result<Layer> {
        let layer = self.unused_name();
        let folder = self.writable_dir();
        self.layers.make(&folder, &layer.0)?;
        if let Err(error) = self.furnish(&folder.join(&layer.0), bytes) {
            // Nobody knows of it; what stays all the same is left to the next start's sweep.
            self.retire(&layer);
            return Err(error);
        }
        Ok(layer)
    }

    fn furnish(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.layers.limit(path, bytes)?;
        // The root of a sandbox is the upper folder: everybody may look into it.
        INNER
            .iter()
            .try_for_each(|inner| std::fs::create_dir(path.join(inner)))
    }

    /// Changes a layer's limit.
    pub fn limit(&self, layer: &Layer, bytes: u64) -> io::Result<()> {
        self.layers
            .limit(&self.writable_dir().join(&layer.0), bytes)
    }

    /// What a layer holds.
    pub fn used_bytes(&self, layer: &Layer) -> io::Result<u64> {
        self.layers.used_bytes(&self.writable_dir().join(&layer.0))
    }

    /// Whether a layer exists.
    pub fn contains(&self, layer: &Layer) -> bool {
        self.writable_dir().join(&layer.0).join("upper").is_dir()
    }

    /// Keeps as much of the host's disk as the pool needs next, and says how much there is. To be
    /// called about every second; without an image it only measures.
    pub fn keep_room(&self) -> io::Result<Room> {
        match &self.backing {
            Some(backing) => backing.keep(),
            None => {
                let disk = rustix::fs::statvfs(&self.root)?;
                let disk_free = disk.f_bavail.saturating_mul(disk.f_frsize);
                Ok(Room {
                    left: disk_free,
                    disk_free,
                    is_moving: false,
                    is_held_up: false,
                })
            }
        }
    }

    /// Moves a layer aside whose last process is known to be gone: [`Pool::empty_trash`] may make
    /// it new. As [`Pool::retire`] else.
    pub fn retire_quiet(&self, layer: &Layer) {
        self.quiet().insert(layer.clone());
        self.retire(layer);
    }

    /// Moves a layer aside; [`Pool::empty_trash`] deletes it. Quick whatever it holds. It never
    /// fails: one that cannot be moved, because the pool is full, is deleted where it is.
    pub fn retire(&self, layer: &Layer) {
        if let Err(error) = self.put_aside(layer) {
            let cause = error.to_string();
            tracing::debug!(cause, "layer {} is retired where it is", layer.0);
            self.stuck().insert(layer.clone());
        }
    }

    /// Deletes a layer that no sandbox had, at once: what it shares with others may be all that is
    /// left of it. It never fails: what cannot be deleted now is retired.
    pub fn discard(&self, layer: &Layer) {
        self.retire(layer);
        let folder = match self.stuck().contains(layer) {
            true => self.writable_dir(),
            false => self.root.join(TRASH),
        };
        if self.layers.delete(&folder, &layer.0).is_ok() {
            self.stuck().remove(layer);
        }
    }

    fn put_aside(&self, layer: &Layer) -> io::Result<()> {
        let trash = self.root.join(TRASH).join(&layer.0);
        match std::fs::rename(self.writable_dir().join(&layer.0), trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Takes those away that could not be moved aside.
    fn delete_stuck(&self) -> io::Result<()> {
        let stuck = self.stuck().clone();
        let mut failed = Ok(());
        for layer in stuck {
            // The kernel keeps room for deleting, but not for moving.
            let moved = self.put_aside(&layer);
            match moved.or_else(|_| self.layers.delete(&self.writable_dir(), &layer.0)) {
                Ok(()) => {
                    self.quiet().remove(&layer);
                    self.stuck().remove(&layer);
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed
    }

    fn quiet(&self) -> std::sync::MutexGuard<'_, BTreeSet<Layer>> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stuck(&self) -> std::sync::MutexGuard<'_, BTreeSet<Layer>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes what was retired, also by earlier processes, or makes it new for who wants it
    /// [`Again`]. May take long; `pause` is called before each layer and may let others go first.
    pub fn empty_trash(
        &self,
        pause: &mut dyn FnMut(),
        again: Option<&Again<'_>>,
    ) -> io::Result<()> {
        let _alone = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = self.delete_stuck();
        let trash = self.root.join(TRASH);
        for name in names(&trash)? {
            pause();
            let is_quiet = self.quiet().remove(&Layer(name.clone()));
            let again = again.filter(|again| is_quiet && (again.wanted)());
            if let Some((again, layer)) = again
                .and_then(|again| Some((again, self.make_new(&trash.join(&name), again.bytes)?)))
            {
                (again.put)(layer);
                continue;
            }
            // One that resists must not keep all others from going.
            failed = failed.and(match self.layers.delete(&trash, &name) {
                // Of a snapshot: whoever removes it was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            });
            failpoint::hit(Point::LayerDeleted);
        }
        failed
    }

    /// Empties a used layer and gives it another name; `None` where it holds much, or resists: it
    /// has to be deleted then. The folders that were a sandbox's root are made anew, because their
    /// owner, mode and attributes were the sandbox's, and its mount may hold them still.
    fn make_new(&self, used: &Path, bytes: u64) -> Option<Layer> {
        let is_small = self.layers.is_worth_emptying(used)
            && self.layers.used_bytes(used).ok()? <= EMPTIED_BYTES_MAX
            && plain::holds_at_most(used, EMPTIED_ENTRIES_MAX, EMPTIED_BYTES_MAX).ok()?
            && std::fs::symlink_metadata(used.join(INNER[0])).ok()?.ino() <= EMPTIED_INODES_MAX;
        if !is_small {
            return None;
        }
        INNER
            .iter()
            .try_for_each(|inner| std::fs::remove_dir_all(used.join(inner)))
            .ok()?;
        failpoint::hit(Point::LayerEmptied);
        self.furnish(used, bytes).ok()?;
        let layer = self.unused_name();
        std::fs::rename(used, self.writable_dir().join(&layer.0)).ok()?;
        Some(layer)
    }

    /// Frees what deleted layers left in the accounting. `false`: some is in use still. The file
    /// system takes deleted layers apart later, within half a minute as a rule; and what a snapshot
    /// shares with one stays that one's.
    pub fn tidy(&self) -> io::Result<bool> {
        let _alone = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever resists is tried again the next time.
        let unstuck = self.delete_stuck().is_ok();
        let folders = [IN_USE, kept::KEPT, TRASH].map(|folder| self.root.join(folder));
        let freed = self.layers.tidy(&self.root, &folders)?;
        Ok(freed && unstuck)
    }

    /// Retires every layer of earlier processes that is not in `keep`.
    pub fn sweep(&self, keep: &BTreeSet<Layer>) -> io::Result<()> {
        let ours = self.prefix();
        self.retire_where(|layer| !keep.contains(layer) && !layer.0.starts_with(&ours))
    }

    /// Retires every layer; none may be in use.
    pub fn retire_all(&self) -> io::Result<()> {
        // None may be on its way back.
        let _alone = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        self.retire_where(|_| true)
    }

    fn retire_where(&self, doomed: impl Fn(&Layer) -> bool) -> io::Result<()> {
        names(&self.writable_dir())?
            .into_iter()
            .map(Layer)
            .filter(doomed)
            .for_each(|layer| self.retire(&layer));
        Ok(())
    }

    fn unused_name(&self) -> Layer {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Layer(format!("{}{number:x}", self.prefix()))
    }

    fn prefix(&self) -> String {
        format!("{:08x}", self.run)
    }

    /// Leaves the image; nothing may use it any more. With `purge` it is deleted.
    pub fn close(&self, purge: bool) -> Result<(), StepError> {
        image::unmount(&self.config)?;
        if purge {
            image::delete(&self.config)?;
            self.delete_sealed().step("delete sealed layers")?;
            for left in ["writable", "layers"] {
                match std::fs::remove_dir_all(self.config.folder.join(left)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error).step("delete the pool's folders");
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Whether plain folders have a layer that somebody may want.
fn holds_any(root: &Path) -> io::Result<bool> {
    for folder in [IN_USE, kept::KEPT] {
        match names(&root.join(folder)) {
            Ok(names) if names.is_empty() => {}
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
