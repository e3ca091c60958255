//! What the pool has of the host's disk: always all that its file system may write to.
//!
//! A write that the host's disk has no room for any more is lost, and where it was one of the file
//! system's own records the kernel makes the pool read-only, for all sandboxes at once. So the file
//! system in the image ends where the image ends that has blocks: [`Backing::keep`] allocates
//! further blocks before it moves the end out, and gives blocks back only after it moved the end
//! in. A host disk that fills up stops the growth and nothing else: sandboxes see a pool that is
//! full. Nothing is discarded inside, which would make holes again.
//!
//! Whoever is killed between two of these steps leaves blocks behind the end; the next one to open
//! the pool gives them back. One process at a time does any of it: blocks that look left over may
//! be those that a predecessor, about to leave, is growing into.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use casemate_linux::btrfs;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};
use rustix::io::{Errno, retry_on_intr};

const MIB: u64 = 1 << 20;
/// What is held ready is this part of the largest pool, within the two limits below it. Too much
/// takes disk that nobody uses; too little, and a sandbox meets the end before it is moved, or a
/// program inside that asks for free space finds too little.
const AHEAD_PART: u64 = 8;
const AHEAD_MIN: u64 = 256 * MIB;
const AHEAD_MAX: u64 = 4096 * MIB;
/// The end moves in multiples of this.
const STEP: u64 = 64 * MIB;
/// The kernel refuses a smaller file system.
const BYTES_MIN: u64 = 256 * MIB;
/// How often it is looked for what could be given back: the kernel drops empty block groups some
/// time after the last file in them.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(30);

/// How much of the pool is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What can still be written before the pool is full, bytes.
    pub left: u64,
    /// What the host's disk has left for everybody, bytes.
    pub disk_free: u64,
    /// Whether the end moved, so that it is worth looking again soon.
    pub is_moving: bool,
    /// Whether more is wanted than the disk has to give.
    pub is_held_up: bool,
}

/// What is held ready of a pool that may become so large.
pub(super) fn ahead(bytes_max: u64) -> u64 {
    (bytes_max / AHEAD_PART).clamp(AHEAD_MIN, AHEAD_MAX)
}

#[derive(Debug)]
pub(super) struct Backing {
    image: File,
    /// Of the image; its file system is asked how much is free.
    folder: PathBuf,
    mount: PathBuf,
    /// What the pool leaves to others, bytes.
    reserve: u64,
    bytes_max: u64,
    /// All of the image up to the file system's end has blocks.
    is_whole: AtomicBool,
    given_back: Mutex<Option<Instant>>,
}

/// While it lives no other process moves the end or what lies behind it.
struct Alone<'a>(&'a File);

impl<'a> Alone<'a> {
    fn with(image: &'a File) -> io::Result<Self> {
        retry_on_intr(|| flock(image, FlockOperation::LockExclusive))?;
        Ok(Self(image))
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        // It cannot fail on an open file, and ends with it.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

/// What to do about the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    None,
    /// To that byte.
    Out(u64),
    /// More is wanted, and the disk has none.
    HeldUp,
    /// There may be something to give back.
    In,
}

impl Backing {
    /// Of a mounted image. An image of an earlier version, which had holes, is filled up; what a
    /// process that was killed left allocated behind the end is given back.
    pub(super) fn open(
        image: File,
        folder: PathBuf,
        mount: PathBuf,
        reserve: u64,
    ) -> io::Result<Self> {
        let backing = Self {
            bytes_max: image.metadata()?.len(),
            image,
            folder,
            mount,
            reserve,
            is_whole: AtomicBool::new(false),
            given_back: Mutex::default(),
        };
        backing.begin()?;
        Ok(backing)
    }

    fn begin(&self) -> io::Result<()> {
        let _alone = Alone::with(&self.image)?;
        let root = File::open(&self.mount)?;
        let bytes = btrfs::device(&root)?.bytes;
        if let Err(error) = self.give_back(&root, bytes) {
            tracing::warn!(%error, "the pool keeps all of its image");
        }
        if let Err(error) = self.free(btrfs::device(&root)?.bytes) {
            tracing::warn!(%error, "the pool keeps blocks that it does not use");
        }
        // Read again: a predecessor of an earlier version moves it without asking.
        self.fill(btrfs::device(&root)?.bytes);
        Ok(())
    }

    /// Moves the end as it is needed. Costs a few calls of the kernel where nothing is to be done.
    pub(super) fn keep(&self) -> io::Result<Room> {
        let _alone = Alone::with(&self.image)?;
        let root = File::open(&self.mount)?;
        let device = btrfs::device(&root)?;
        if !self.is_whole.load(Ordering::Relaxed) {
            self.fill(device.bytes);
        }
        let disk = statvfs(&self.folder)?;
        let disk_free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let unused = device.bytes.saturating_sub(device.given_out);
        let spare = disk_free.saturating_sub(self.reserve);
        let next = plan(device.bytes, unused, self.bytes_max, spare);
        let is_moving = match next {
            Move::None | Move::HeldUp => false,
            Move::Out(end) => self.grow(&root, device.bytes, end)?,
            Move::In => self.is_time() && self.give_back(&root, device.bytes)?,
        };
        let pool = statvfs(&self.mount)?;
        Ok(Room {
            left: pool.f_bavail.saturating_mul(pool.f_frsize),
            disk_free,
            is_moving,
            is_held_up: next == Move::HeldUp || !self.is_whole.load(Ordering::Relaxed),
        })
    }

    /// `false`: somebody else took the space meanwhile.
    fn grow(&self, root: &File, from: u64, to: u64) -> io::Result<bool> {
        match self.allocate(from, to - from) {
            Ok(()) => {}
            Err(Errno::NOSPC | Errno::DQUOT) => {
                self.free(from)?;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        btrfs::resize(root, to)?;
        Ok(true)
    }

    /// Moves the end in to the last block group and what is held ready behind it. Nothing inside is
    /// moved for it: that would cost sandboxes the disk.
    fn give_back(&self, root: &File, bytes: u64) -> io::Result<bool> {
        let ahead = ahead(self.bytes_max);
        let end = round_up(btrfs::device_end(root)? + ahead).max(BYTES_MIN);
        if end + ahead / 2 > bytes {
            return Ok(false);
        }
        btrfs::resize(root, end)?;
        self.free(end)?;
        Ok(true)
    }

    fn is_time(&self) -> bool {
        let mut last = self
            .given_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_time = last.is_none_or(|last| last.elapsed() >= GIVE_BACK_EVERY);
        if is_time {
            *last = Some(Instant::now());
        }
        is_time
    }

    fn fill(&self, bytes: u64) {
        match self.allocate(0, bytes) {
            Ok(()) => self.is_whole.store(true, Ordering::Relaxed),
            // Said by whoever looks at the room; tried again until it works.
            Err(error) => tracing::debug!(%error, "the pool's image has holes"),
        }
    }

    fn allocate(&self, from: u64, bytes: u64) -> rustix::io::Result<()> {
        match fallocate(&self.image, FallocateFlags::KEEP_SIZE, from, bytes) {
            // Some file systems cannot: there the pool is as safe as their free space.
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    /// Gives all blocks from there on back.
    fn free(&self, from: u64) -> io::Result<()> {
        let Some(bytes) = self.bytes_max.checked_sub(from).filter(|bytes| *bytes > 0) else {
            return Ok(());
        };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.image, flags, from, bytes) {
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    }
}

/// `unused`: not given out to block groups; `spare`: what the disk has beyond the reserve.
fn plan(bytes: u64, unused: u64, bytes_max: u64, spare: u64) -> Move {
    let ahead = ahead(bytes_max);
    if unused > ahead * 2 {
        return Move::In;
    }
    let wanted = round_up(ahead.saturating_sub(unused)).min(bytes_max.saturating_sub(bytes));
    if wanted < STEP {
        return Move::None;
    }
    match wanted.min(spare / STEP * STEP) {
        0 => Move::HeldUp,
        given => Move::Out(bytes + given),
    }
}

fn round_up(bytes: u64) -> u64 {
    bytes.div_ceil(STEP) * STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_end_moves_out_while_there_is_less_than_is_held_ready_and_the_disk_has_some() {
        // Of 40 GiB at most 4 are held ready.
        let check = |bytes, unused, spare, expected| {
            assert_eq!(plan(bytes, unused, 40 * GIB, spare), expected);
        };
        check(5 * GIB, 4 * GIB, 20 * GIB, Move::None);
        check(5 * GIB, 3 * GIB, 20 * GIB, Move::Out(6 * GIB));
        check(5 * GIB, 3 * GIB, 500 * MIB, Move::Out(5 * GIB + 448 * MIB));
        check(5 * GIB, 3 * GIB, 63 * MIB, Move::HeldUp);
        check(5 * GIB, 0, 0, Move::HeldUp);
        check(40 * GIB, 0, 20 * GIB, Move::None);
        check(39 * GIB, 0, 20 * GIB, Move::Out(40 * GIB));
        check(20 * GIB, 9 * GIB, 0, Move::In);
    }

    #[test]
    fn a_small_pool_holds_little_ready() {
        assert_eq!(ahead(GIB), 256 * MIB);
        assert_eq!(ahead(16 * GIB), 2 * GIB);
        assert_eq!(ahead(1 << 40), 4 * GIB);
    }
}
