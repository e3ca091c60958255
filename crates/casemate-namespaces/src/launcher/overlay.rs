//! A sandbox's root: read-only layers and a writable one, all seen through the sandbox's ids.
//!
//! Files on disk have the ids that programs in sandboxes see (0 to 65535), so layers are shared by
//! all sandboxes; the id map of each mount shifts them into the sandbox's own range. The overlay
//! is mounted by root with the *file system ids* of that range's first id: plain root has no place
//! in the map, and the kernel would then mount read-only without a word. Overlay attributes are
//! `trusted.*`, which nothing in a sandbox can write.
//!
//! `volatile`: no sync of the whole pool at unmount, and `fsync` inside costs nothing. Nothing of
//! a running sandbox is promised over a power loss; what is kept is synced when it is sealed.
//! `xino=on`: layers and pool are different file systems, and file numbers must not collide.
//! `redirect_dir=on`: renaming a folder of a lower layer works instead of failing with `EXDEV`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use casemate_linux::creds::with_fs_ids;
use casemate_linux::mount::{Attributes, clone_mount, set_attributes};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, unmount,
};

use super::message::Order;
use super::room::{ATTACH_POINTS, attach};
use super::undertaker::Undertaker;
use crate::step::{Step, StepError};

/// How this kernel takes layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayerForm {
    /// As descriptors; nothing needs to be attached (newer kernels).
    Descriptors,
    /// As paths, so layers are attached for the moment of mounting.
    Paths,
}

impl LayerForm {
    /// Asks the kernel with a folder of the room.
    pub(super) fn probe() -> Self {
        let probe = || -> io::Result<()> {
            let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            let layer = clone_mount(CWD, "/")?;
            Ok(fsconfig_set_fd(
                context.as_fd(),
                "lowerdir+",
                layer.as_fd(),
            )?)
        };
        if probe().is_ok() {
            Self::Descriptors
        } else {
            Self::Paths
        }
    }
}

/// A detached overlay, ready to be a root.
pub(super) fn mount(
    order: &Order,
    form: LayerForm,
    userns: BorrowedFd<'_>,
    undertaker: &Undertaker,
) -> Result<OwnedFd, StepError> {
    if order.lowers.is_empty() || order.lowers.len() >= ATTACH_POINTS {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).step("count the layers");
    }
    // Writable first, then the layers from the top.
    let mut layers = vec![idmapped(&order.writable, userns, false).step("map the writable layer")?];
    for lower in &order.lowers {
        layers.push(idmapped(lower, userns, true).step("map a layer")?);
    }
    let mounted = mount_on(&layers, order.first_id, form);
    // The overlay has clones of its own by now.
    undertaker.bury(layers);
    mounted
}

fn mount_on(layers: &[OwnedFd], first_id: u32, form: LayerForm) -> Result<OwnedFd, StepError> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).step("open an overlay")?;
    match form {
        LayerForm::Descriptors => {
            set_descriptors(&context, layers).step("name the layers")?;
            create(&context, first_id)
        }
        LayerForm::Paths => {
            let _attached = Attached::new(layers).step("attach the layers")?;
            set_paths(&context, layers.len() - 1).step("name the layers")?;
            create(&context, first_id)
        }
    }
}

fn create(context: &OwnedFd, first_id: u32) -> Result<OwnedFd, StepError> {
    let context = context.as_fd();
    let options = || -> io::Result<()> {
        for (key, value) in [
            ("index", "off"),
            ("metacopy", "off"),
            ("redirect_dir", "on"),
            ("xino", "on"),
        ] {
            fsconfig_set_string(context, key, value)?;
        }
        Ok(fsconfig_set_flag(context, "volatile")?)
    };
    options().step("set the overlay's options")?;
    with_fs_ids(first_id, || fsconfig_create(context))
        .step("take the sandbox's ids")?
        .step("create the overlay")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount =
        fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).step("mount the overlay")?;
    // With ids that do not fit the kernel mounts read-only and says so nowhere but here.
    let flags = rustix::fs::fstatvfs(&mount)
        .step("check the overlay")?
        .f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem)).step("check the overlay");
    }
    Ok(mount)
}

fn idmapped(path: &Path, userns: BorrowedFd<'_>, read_only: bool) -> io::Result<OwnedFd> {
    let mount = clone_mount(CWD, path)?;
    let attributes = Attributes {
        read_only,
        no_devices: true,
        idmap: Some(userns),
        ..Attributes::default()
    };
    set_attributes(&mount, attributes)?;
    Ok(mount)
}

fn set_descriptors(context: &OwnedFd, layers: &[OwnedFd]) -> io::Result<()> {
    let context = context.as_fd();
    for lower in &layers[1..] {
        fsconfig_set_fd(context, "lowerdir+", lower.as_fd())?;
    }
    for (key, folder) in [("upperdir", "upper"), ("workdir", "work")] {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(&layers[0], folder, flags, Mode::empty())?;
        fsconfig_set_fd(context, key, folder.as_fd())?;
    }
    Ok(())
}

/// The names that a sandbox sees in its mount table, so they say nothing.
fn set_paths(context: &OwnedFd, lowers: usize) -> io::Result<()> {
    let context = context.as_fd();
    let list: Vec<_> = (1..=lowers).map(|number| format!("/m/{number}")).collect();
    fsconfig_set_string(context, "lowerdir", list.join(":"))?;
    fsconfig_set_string(context, "upperdir", "/m/0/upper")?;
    Ok(fsconfig_set_string(context, "workdir", "/m/0/work")?)
}

/// Layers at their places in the room; taken away again when dropped.
struct Attached(Vec<PathBuf>);

impl Attached {
    fn new(layers: &[OwnedFd]) -> io::Result<Self> {
        let mut attached = Self(Vec::new());
        for (number, mount) in layers.iter().enumerate() {
            let place = PathBuf::from(format!("/m/{number}"));
            attach(mount, &place)?;
            attached.0.push(place);
        }
        Ok(attached)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for place in &self.0 {
            // Only fails when it is not mounted, which is what is wanted.
            let _ = unmount(place, UnmountFlags::DETACH);
        }
    }
}
