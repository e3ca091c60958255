//! The image: a file with a btrfs in it, on a loop device, mounted below `/run`.
//!
//! The file's size is what all writable layers together can take from the host's disk; how much of
//! it is there is `backing`'s.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_linux::btrfs::{self, Quotas};
use casemate_linux::loopdev;
use rustix::mount::{MountFlags, UnmountFlags};

use super::PoolConfig;
use super::backing::{self, Backing};
use crate::step::{Step, StepError};

/// A pool below this is no use; the disk is too full.
const BYTES_MIN: u64 = 512 << 20;
/// How much of what is free a new pool may grow to, in fifths.
const FREE_FIFTHS: u64 = 3;
/// What a new one has beside what is held ready: the file system's own records.
const FIRST_BYTES: u64 = 256 << 20;
/// How long the kernel may take to let go of the device after the last user: it writes out first
/// what was only in memory.
const RELEASE_SECONDS: u64 = 120;
/// `statfs` type of btrfs.
const BTRFS_MAGIC: u64 = 0x9123_683E;

pub(super) fn path(config: &PoolConfig) -> PathBuf {
    config.folder.join("pool.img")
}

/// Of an image that is being made.
fn half_path(config: &PoolConfig) -> PathBuf {
    path(config).with_extension("new")
}

/// A setuid file that a sandbox wrote must not be one for the host: ids lie there unshifted.
const FLAGS: MountFlags = MountFlags::NOATIME
    .union(MountFlags::NODEV)
    .union(MountFlags::NOSUID);

/// Freed blocks stay the image's: see `backing`. And the file system gives its own records a block
/// group after every eighth for files: where files took all, a full pool would let nobody make
/// a file any more, whatever was removed.
const OPTIONS: &std::ffi::CStr = c"nodiscard,metadata_ratio=8";

/// Mounts the image with quotas on; what is mounted already is taken over.
pub(super) fn mount(config: &PoolConfig) -> Result<(Quotas, Backing), StepError> {
    std::fs::create_dir_all(&config.mount).step("make the pool's mount point")?;
    if !is_mounted(config)? {
        match File::options().read(true).write(true).open(path(config)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => mount_new(config)?,
            image => mount_image(config, &image.step("open the pool's image")?)?,
        }
    } else {
        if !exists(config) {
            // A crash came before it got its name.
            put_in_place(config)?;
        }
        let flags = FLAGS | MountFlags::BIND;
        rustix::mount::mount_remount(&config.mount, flags, c"").step("protect the pool")?;
        // Earlier versions gave freed blocks back. One that stopped is no reason to leave it.
        if let Err(error) = rustix::mount::mount_remount(&config.mount, FLAGS, OPTIONS) {
            tracing::warn!(%error, "the pool keeps its former options");
        }
    }
    let root = File::open(&config.mount).step("open the pool")?;
    let quotas = btrfs::quotas_enable(&root).step("switch on the pool's quotas")?;
    let image = File::options().write(true).open(path(config));
    let image = image.step("open the pool's image")?;
    let (folder, mount) = (config.folder.clone(), config.mount.clone());
    let backing = Backing::open(image, folder, mount, config.disk_reserve);
    Ok((quotas, backing.step("measure the pool")?))
}

fn mount_image(config: &PoolConfig, image: &File) -> Result<(), StepError> {
    let found = loopdev::find(image).step("look for the pool's loop device")?;
    // The handle keeps the device until it is mounted.
    let (device, _held) = match found {
        Some(device) => (device, None),
        None => {
            let (device, held) =
                loopdev::attach(image.as_fd()).step("attach the pool to a loop device")?;
            (device, Some(held))
        }
    };
    rustix::mount::mount(&device, &config.mount, "btrfs", FLAGS, OPTIONS)
        .step("mount the pool (does this kernel have btrfs?)")
}

/// Makes an image and mounts it. It has its name only then: an image that has it was in use once,
/// and one that cannot be mounted here never gets it.
fn mount_new(config: &PoolConfig) -> Result<(), StepError> {
    let half = half_path(config);
    let mounted = make(config, &half).and_then(|image| mount_image(config, &image));
    if mounted.is_err() {
        // Where there is none, as on a full disk, that is as good.
        let _ = std::fs::remove_file(half);
    }
    mounted?;
    put_in_place(config)
}

fn put_in_place(config: &PoolConfig) -> Result<(), StepError> {
    std::fs::rename(half_path(config), path(config)).step("put the pool's image in place")
}

/// Whether there is an image, and with it perhaps what sandboxes wrote.
pub(super) fn exists(config: &PoolConfig) -> bool {
    !matches!(path(config).try_exists(), Ok(false))
}

fn is_mounted(config: &PoolConfig) -> Result<bool, StepError> {
    let kind = rustix::fs::statfs(&config.mount)
        .step("look at the pool's mount point")?
        .f_type;
    Ok(u64::try_from(kind).is_ok_and(|kind| kind == BTRFS_MAGIC) && is_mount_point(config))
}

/// The data directory itself may be a btrfs.
fn is_mount_point(config: &PoolConfig) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &std::path::Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    config
        .mount
        .parent()
        .is_some_and(|parent| device(parent) != device(&config.mount))
}

fn make(config: &PoolConfig, half: &Path) -> Result<File, StepError> {
    let bytes = match config.bytes_max {
        Some(bytes) => bytes,
        None => {
            let disk = rustix::fs::statvfs(&config.folder).step("measure the free disk space")?;
            disk.f_bavail.saturating_mul(disk.f_frsize) / 5 * FREE_FIFTHS
        }
    };
    if bytes < BYTES_MIN {
        return Err(io::Error::from(io::ErrorKind::StorageFull)).step("make the pool's image");
    }
    let bytes = bytes / 4096 * 4096;
    let first = (backing::ahead(bytes) + FIRST_BYTES).clamp(BYTES_MIN, bytes);
    let mut file = File::options();
    let file = file.read(true).write(true).create(true).truncate(true);
    let file = file.open(half).step("make the pool's image")?;
    // Where files are written anew at each change, blocks that they have are no room for it.
    let _ = rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::NOCOW);
    file.set_len(first).step("make the pool's image")?;
    let made = Command::new("mkfs.btrfs")
        .args([
            "--quiet",
            "--force",
            "--metadata",
            "single",
            "--data",
            "single",
            "--byte-count",
        ])
        .arg(first.to_string())
        .arg(half)
        .stdin(Stdio::null())
        .output()
        .step("run mkfs.btrfs (is btrfs-progs installed?)")?;
    if !made.status.success() {
        let text = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        return Err(io::Error::other(text)).step("format the pool's image");
    }
    file.set_len(bytes).step("make the pool's image")?;
    Ok(file)
}

/// Unmounts and waits until the kernel has let go of the file.
pub(super) fn unmount(config: &PoolConfig) -> Result<(), StepError> {
    if is_mount_point(config) {
        rustix::mount::unmount(&config.mount, UnmountFlags::DETACH).step("unmount the pool")?;
    }
    let image = match File::open(path(config)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.step("open the pool's image")?,
    };
    let deadline = Instant::now() + Duration::from_secs(RELEASE_SECONDS);
    while loopdev::find(&image)
        .step("look for the pool's loop device")?
        .is_some()
    {
        if Instant::now() > deadline {
            return Err(io::Error::from(io::ErrorKind::ResourceBusy)).step("release the pool");
        }
        // The kernel has no event for this.
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Deletes the image; it must be unmounted.
pub(super) fn delete(config: &PoolConfig) -> Result<(), StepError> {
    for file in [path(config), half_path(config)] {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).step("delete the pool's image");
            }
            _ => {}
        }
    }
    match std::fs::remove_dir(&config.mount) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).step("remove the pool's mount point")
        }
        _ => Ok(()),
    }
}
