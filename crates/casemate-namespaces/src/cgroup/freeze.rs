//! Holding a sandbox's processes where they are.
//!
//! Version 2 does it in its tree, also beside limits on version 1: a frozen process is then as one
//! that sleeps, and dies when it is killed. Version 1 alone has a hierarchy for it, in which a
//! frozen process does not even die: whoever kills thaws after it ([`Cgroups::kill`]), and never
//! before, so that no program runs in between.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::retry_on_intr;

use super::sandbox::{is_gone, read_at, write_at};
use super::{Cgroups, Tree};

/// What freezes on version 1.
pub(super) const FREEZER: &str = "freezer";
/// Version 2 tells when the last process stands still, but not twice in 10 ms; version 1 tells
/// nobody. So it is looked this often all the same.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000,
};

impl Cgroups {
    /// Holds every process of a sandbox; none runs once this has returned. On an error, as when
    /// one does not stand still in time, all run on. Blocks.
    pub(crate) fn freeze(&self, name: &str, patience: Duration) -> io::Result<()> {
        let frozen = self.hold(name, patience);
        if frozen.is_err() {
            // What cannot be thawed either is gone: there is nothing else that fails here.
            let _ = self.thaw(name);
        }
        frozen
    }

    fn hold(&self, name: &str, patience: Duration) -> io::Result<()> {
        let tree = self.freezer()?;
        let (order, state) = files(tree);
        write_at(&tree.instance, &format!("{name}/{order}"), word(tree, true))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = format!("{name}/{state}");
        let state = File::from(openat(&tree.instance, path, flags, Mode::empty())?);
        let deadline = Instant::now() + patience;
        while !stands_still(tree, &state)? {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut polled = [PollFd::new(&state, PollFlags::PRI)];
            // Where nobody tells, files of groups are always ready.
            match tree.hierarchy.unified {
                true => drop(retry_on_intr(|| poll(&mut polled, Some(&LOOK)))?),
                false => std::thread::sleep(Duration::from_nanos(LOOK.tv_nsec.unsigned_abs())),
            }
        }
        Ok(())
    }

    /// Lets a sandbox's processes go on. `Ok` also when none was held, or the group is gone.
    pub(crate) fn thaw(&self, name: &str) -> io::Result<()> {
        let tree = match self.freezer() {
            Ok(tree) => tree,
            // Where nothing can freeze nothing is frozen.
            Err(_) => return Ok(()),
        };
        if !self.is_frozen(name)? {
            return Ok(());
        }
        let (order, _) = files(tree);
        match write_at(
            &tree.instance,
            &format!("{name}/{order}"),
            word(tree, false),
        ) {
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    /// Whether a sandbox's processes are held, or are about to be. `false` when there is no group.
    /// Takes no lock of the kernel's, as thawing does.
    pub(crate) fn is_frozen(&self, name: &str) -> io::Result<bool> {
        let tree = self.freezer()?;
        let (order, _) = files(tree);
        match read_at(&tree.instance, &format!("{name}/{order}")) {
            Ok(text) => Ok(!matches!(text.trim(), "0" | "THAWED")),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn freezer(&self) -> io::Result<&Tree> {
        let v1 = || self.v1.iter().find(|tree| tree.hierarchy.has(FREEZER));
        let tree = self.unified.as_ref().or_else(v1);
        tree.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// Where it is ordered, and where it is told.
fn files(tree: &Tree) -> (&'static str, &'static str) {
    match tree.hierarchy.unified {
        true => ("cgroup.freeze", "cgroup.events"),
        false => ("freezer.state", "freezer.state"),
    }
}

fn word(tree: &Tree, frozen: bool) -> &'static str {
    match (tree.hierarchy.unified, frozen) {
        (true, true) => "1",
        (true, false) => "0",
        (false, true) => "FROZEN",
        (false, false) => "THAWED",
    }
}

fn stands_still(tree: &Tree, state: &File) -> io::Result<bool> {
    let mut buffer = [0; 256];
    let length = state.read_at(&mut buffer, 0)?;
    let text = std::str::from_utf8(&buffer[..length]).map_err(io::Error::other)?;
    Ok(match tree.hierarchy.unified {
        true => text.lines().any(|line| line == "frozen 1"),
        false => text.trim() == "FROZEN",
    })
}
