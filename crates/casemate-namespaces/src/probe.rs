//! Whether a host can do what the runtime needs, found out by trying.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use casemate_linux::clone::SingleThreaded;
use casemate_linux::mount::{Attributes, clone_mount, set_attributes};
use rustix::fs::CWD;

use crate::launcher::user_namespace;
/// Where the first instance's ids begin: a map like those of sandboxes.
const FIRST_ID: u32 = 1 << 27;

/// Maps the ids of a clone of the mount at `dir`, which nobody sees, and drops it again. Must be
/// called by a process of one thread, as root.
pub fn idmapped_mount(dir: &Path) -> io::Result<()> {
    let proof = SingleThreaded::prove()?;
    let namespace = user_namespace(&proof, FIRST_ID).map_err(|error| error.source)?;
    let mount = clone_mount(CWD, dir)?;
    let mapped = Attributes {
        idmap: Some(namespace.as_fd()),
        ..Attributes::default()
    };
    set_attributes(&mount, mapped)
}
