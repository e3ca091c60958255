//! More mounts on the host, for as long as a value lives.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Always here, so that what a killed bench left is found by the next one.
const PLACE: &str = "/run/casemate-bench";

pub(super) struct Mounts(());

impl Mounts {
    /// File systems in memory, empty, one beside the other.
    pub(super) fn make(count: usize) -> io::Result<Self> {
        sweep();
        fs::create_dir_all(PLACE)?;
        let mounts = Self(());
        mount("casemate-bench", PLACE, "tmpfs", MountFlags::empty(), None)?;
        for number in 0..count {
            let place = format!("{PLACE}/{number}");
            fs::create_dir(&place)?;
            mount(
                "casemate-bench",
                &*place,
                "tmpfs",
                MountFlags::empty(),
                None,
            )?;
        }
        Ok(mounts)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        sweep();
    }
}

/// Takes away the whole tree at once. Where there is none, there is nothing to do.
fn sweep() {
    while Path::new(PLACE).exists() && unmount(PLACE, UnmountFlags::DETACH).is_ok() {}
    let _ = fs::remove_dir(PLACE);
}
