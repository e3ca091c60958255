//! A sandbox's own view of what is the same for all: devices, masks over `/proc`, `/sys`, the agent.
//!
//! The files are shared, but whoever watches, locks or leases one does so on its inode, and a shared
//! inode tells one sandbox what another does. So each gets an overlay of them: its inodes are its
//! own, made as they are first looked at, while content and memory stay those of the one file below.
//! It has no writable layer. A worker mounts it before its request comes (50 µs, and 4 KiB of the
//! kernel's memory); with the last process of its sandbox it goes.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use super::machine::Machine;
use crate::step::{Step, StepError};

/// Where a sandbox's first process finds it, below its root, until that is put together.
pub(super) const PLACE: &str = "/own";
/// Folder in it over which the figures of the sandbox's own slot are attached.
pub(super) const FIGURES: &str = "figures";
/// What the room has for all; names in it are in no other layer.
pub(super) const SHARED: &str = "/shared";
/// What the node has for all with the same processors, among folders of slots.
pub(super) const VIEWS: &str = "/v";
/// The folder with the agent's binary.
pub(super) const AGENT: &str = "/agent";

#[derive(Debug)]
pub(super) struct Own {
    pub(super) mount: OwnedFd,
    pub(super) agent: OwnedFd,
    pub(super) null: OwnedFd,
}

impl Own {
    /// In the room, as the host's root.
    pub(super) fn mount(agent: &OsStr, machine: &Machine) -> Result<Self, StepError> {
        let mount = overlay().step("mount a sandbox's own view")?;
        let open =
            |path: &OsStr, flags| openat(&mount, path, flags | OFlags::CLOEXEC, Mode::empty());
        let agent = open(agent, OFlags::PATH).step("open the agent's binary")?;
        let null = open("dev/null".as_ref(), OFlags::RDWR).step("open /dev/null")?;
        for place in machine.places() {
            // Found once, it is found faster when somebody waits for it.
            statat(&mount, place, AtFlags::empty()).step("look at what lies over /proc")?;
        }
        Ok(Self { mount, agent, null })
    }
}

fn overlay() -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    let layers = format!("{SHARED}:{VIEWS}:{AGENT}");
    fsconfig_set_string(context, "lowerdir", layers)?;
    fsconfig_create(context)?;
    // Devices and programs are what it is for.
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID;
    Ok(fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
