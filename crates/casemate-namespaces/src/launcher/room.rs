//! The room: the launcher's own mount namespace, stripped to what sandboxes are made of.
//!
//! Its workers take from it what each sandbox needs and leave it (`bare`), so nothing of it is in a
//! sandbox's namespace:
//!
//! ```text
//! /          tmpfs, read-only once built
//! /proc      the host's, through which ids and clocks are set
//! /shared    what all sandboxes see through inodes of their own: their `/dev`, and what lies over
//!            entries of `/proc`; owned by nobody in them
//! /agent     the folder with the agent's binary, read-only; seen in the same way
//! /m/<n>     where layers are attached while an overlay is mounted
//! /mnt       where the bare namespace's root is put together
//! /v         what sandboxes see of their machines, read-only
//! /g/<name>  groups of version 1 in which they find their limits, read-only
//! /<name>    folders of the host that hold layers
//! ```

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use casemate_linux::clone::{Namespaces, SingleThreaded, unshare};
use casemate_linux::mount::{Attributes, clone_mount, set_attributes};
use casemate_linux::seccomp::Filter;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat, symlink};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};

use super::machine::{Gathered, Machine};
use super::message::Setup;
use super::undertaker::Undertaker;
use super::{bare, filter, overlay, own};
use crate::cgroup::Cgroups;
use crate::step::{Step, StepError};

/// How many layers can be attached at once: sixteen lower ones and the writable one.
pub(super) const ATTACH_POINTS: usize = 17;

/// What the launcher keeps ready for every create.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) cgroups: Cgroups,
    /// Name of the agent's binary in its folder.
    pub(super) agent: OsString,
    pub(super) filter: Filter,
    pub(super) layers: overlay::LayerForm,
    pub(super) undertaker: Undertaker,
    pub(super) machine: Machine,
    /// The namespace that workers leave the room for.
    pub(super) bare: OwnedFd,
}

impl Room {
    pub(super) fn build(proof: &SingleThreaded, setup: &Setup) -> Result<Self, StepError> {
        let place = (setup.agent.parent(), setup.agent.file_name());
        let (Some(agent_folder), Some(agent)) = place else {
            return Err(io::Error::from(io::ErrorKind::InvalidFilename))
                .step("find the agent's binary");
        };
        let cgroups = Cgroups::open(&setup.instance)?;
        let filter = filter::strict()
            .map_err(io::Error::other)
            .step("assemble the system call filter")?;
        let machine = Gathered::new(&cgroups, &setup.views)?;
        unshare(Namespaces::MOUNT).step("make a mount namespace")?;
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .step("detach from the host's mounts")?;
        let machine = furnish(setup, machine, agent_folder)?;
        let layers = match setup.layers_by_path {
            true => overlay::LayerForm::Paths,
            false => overlay::LayerForm::probe(),
        };
        let bare = bare::make(proof)?;
        let undertaker = Undertaker::start(proof).step("start an undertaker")?;
        // Last: the groups of sandboxes forbid making device files.
        cgroups
            .join_shared()
            .step("join the shared control groups")?;
        Ok(Self {
            cgroups,
            agent: agent.to_owned(),
            filter,
            layers,
            undertaker,
            machine,
            bare,
        })
    }
}

fn furnish(setup: &Setup, machine: Gathered, agent: &Path) -> Result<Machine, StepError> {
    // Copies of the host's mounts are taken before the room hides them.
    let proc = clone_mount(CWD, "/proc").step("copy /proc")?;
    let agent = clone_mount(CWD, agent).step("copy the agent's folder")?;
    let shown = setup
        .shown
        .iter()
        .map(|(name, from)| {
            Ok((
                name,
                clone_mount(CWD, from).step("copy a folder of layers")?,
            ))
        })
        .collect::<Result<Vec<_>, StepError>>()?;
    let room = tmpfs("0755").step("make the room")?;
    attach(&room, &setup.site).step("attach the room")?;
    rustix::process::chdir(&setup.site).step("enter the room")?;
    rustix::process::pivot_root(".", ".").step("make the room the root")?;
    unmount(".", UnmountFlags::DETACH).step("leave the host's mounts")?;
    rustix::process::chdir("/").step("enter the room")?;
    for folder in ["/proc", "/mnt", "/m", own::SHARED, own::AGENT] {
        std::fs::create_dir(folder).step("furnish the room")?;
    }
    for number in 0..ATTACH_POINTS {
        std::fs::create_dir(format!("/m/{number}")).step("furnish the room")?;
    }
    attach(&proc, Path::new("/proc")).step("attach /proc")?;
    for (name, mount) in shown {
        let place = Path::new("/").join(name);
        std::fs::create_dir(&place).step("furnish the room")?;
        attach(&mount, &place).step("attach a folder of layers")?;
    }
    attach(&agent, Path::new(own::AGENT)).step("attach the agent's folder")?;
    furnish_dev(&Path::new(own::SHARED).join("dev")).step("furnish /dev")?;
    let machine = machine.furnish()?;
    let read_only = Attributes {
        read_only: true,
        ..Attributes::default()
    };
    set_attributes(&room, read_only).step("protect the room")?;
    Ok(machine)
}

fn furnish_dev(dev: &Path) -> io::Result<()> {
    std::fs::create_dir(dev)?;
    let nodes: [(&str, u32, u32); 6] = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    for (name, major, minor) in nodes {
        let path = dev.join(name);
        let mode = Mode::from_raw_mode(0o666);
        mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            mode,
            makedev(major, minor),
        )?;
        // The umask took bits away.
        rustix::fs::chmod(&path, mode)?;
    }
    for (target, name) in [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ] {
        symlink(target, dev.join(name))?;
    }
    for folder in ["pts", "shm", "mqueue"] {
        std::fs::create_dir(dev.join(folder))?;
    }
    Ok(())
}

pub(super) fn tmpfs(mode: &str) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "mode", mode)?;
    fsconfig_set_string(context.as_fd(), "size", "1m")?;
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}

/// Puts a detached mount at a place of the caller's namespace.
pub(super) fn attach(mount: &OwnedFd, place: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", CWD, place, flags)?)
}
