//! btrfs by its ioctls: subvolumes, their limits and what they use.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

const RESIZE: libc::c_ulong = iow(3, 4096);
const SUBVOL_CREATE: libc::c_ulong = iow(14, 4096);
const SNAP_DESTROY: libc::c_ulong = iow(15, 4096);
const TREE_SEARCH: libc::c_ulong = iowr(17, 4096);
const INO_LOOKUP: libc::c_ulong = iowr(18, 4096);
const SNAP_CREATE: libc::c_ulong = iow(23, 4096);
const DEV_INFO: libc::c_ulong = iowr(30, 4096);
const QUOTA_CTL: libc::c_ulong = iowr(40, 16);
const QGROUP_CREATE: libc::c_ulong = iow(42, 16);
const QGROUP_LIMIT: libc::c_ulong = ior(43, 48);

const QUOTA_ENABLE: u64 = 1;
const QUOTA_ENABLE_SIMPLE: u64 = 4;
const LIMIT_REFERENCED: u64 = 1;
/// The root folder of every subvolume has this inode number.
const FIRST_FREE_OBJECT: u64 = 256;
const DEVICE_TREE: u64 = 4;
const QUOTA_TREE: u64 = 8;
/// The only device of a file system that is made from one.
const FIRST_DEVICE: u64 = 1;
const DEVICE_EXTENT_KEY: u32 = 204;
const QGROUP_INFO_KEY: u32 = 242;

const fn request(direction: u64, number: u64, size: u64) -> libc::c_ulong {
    (direction << 30) | (size << 16) | (0x94 << 8) | number
}
const fn iow(number: u64, size: u64) -> libc::c_ulong {
    request(1, number, size)
}
const fn ior(number: u64, size: u64) -> libc::c_ulong {
    request(2, number, size)
}
const fn iowr(number: u64, size: u64) -> libc::c_ulong {
    request(3, number, size)
}

/// How a file system counts what subvolumes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotas {
    /// By who wrote an extent first; costs next to nothing (kernels from 6.7).
    Simple,
    /// By who can reach an extent.
    Full,
}

/// A type that the kernel reads or writes through a pointer, of exactly the size in its request.
///
/// # Safety
/// Plain integers only, in the layout of the request.
unsafe trait Argument {}

#[repr(C)]
struct VolumeArgs {
    fd: i64,
    name: [u8; 4088],
}
#[repr(C)]
struct SnapshotArgs {
    fd: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}
#[repr(C)]
struct QuotaArgs {
    command: u64,
    status: u64,
}
#[repr(C)]
struct QgroupCreateArgs {
    create: u64,
    qgroup: u64,
}
#[repr(C)]
#[derive(Default)]
struct QgroupLimitArgs {
    qgroup: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}
#[repr(C)]
struct LookupArgs {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}
#[repr(C)]
#[derive(Default)]
struct SearchKey {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_transaction: u64,
    max_transaction: u64,
    min_type: u32,
    max_type: u32,
    items: u32,
    unused: u32,
    unused_more: [u64; 4],
}
#[repr(C)]
struct SearchArgs {
    key: SearchKey,
    buffer: [u8; 4096 - size_of::<SearchKey>()],
}
const SEARCH_HEADER: usize = 32;
#[repr(C)]
struct DeviceInfoArgs {
    device: u64,
    uuid: [u8; 16],
    bytes_used: u64,
    total_bytes: u64,
    rest: [u64; 507],
}

// SAFETY: integers only; sizes are those in the requests above (4096, 16, 16, 48, 4096, 4096, 4096;
// 4096 and 8 of the next two).
unsafe impl Argument for VolumeArgs {}
// SAFETY: see above.
unsafe impl Argument for SnapshotArgs {}
// SAFETY: see above.
unsafe impl Argument for QuotaArgs {}
// SAFETY: see above.
unsafe impl Argument for QgroupCreateArgs {}
// SAFETY: see above.
unsafe impl Argument for QgroupLimitArgs {}
// SAFETY: see above.
unsafe impl Argument for LookupArgs {}
// SAFETY: see above.
unsafe impl Argument for SearchArgs {}
// SAFETY: see above.
unsafe impl Argument for DeviceInfoArgs {}

fn ioctl<A: Argument>(fd: impl AsFd, request: libc::c_ulong, args: &mut A) -> io::Result<()> {
    debug_assert_eq!((request >> 16) & 0x3fff, size_of::<A>() as u64);
    // SAFETY: `A` is plain integers of the size that the request carries, alive over the call.
    match unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, args) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn volume_args(name: &str) -> io::Result<VolumeArgs> {
    let mut args = VolumeArgs {
        fd: 0,
        name: [0; 4088],
    };
    write_name(name, &mut args.name)?;
    Ok(args)
}

fn write_name(name: &str, place: &mut [u8]) -> io::Result<()> {
    if name.is_empty() || name.len() > 255 || name.contains('/') {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    place[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}

/// Makes the subvolume `name` in the folder.
pub fn subvolume_create(folder: impl AsFd, name: &str) -> io::Result<()> {
    ioctl(folder, SUBVOL_CREATE, &mut volume_args(name)?)
}

/// Makes the subvolume `name` in the folder, with all that `source` holds at this moment, also what
/// was not written to disk yet. It and its content survive a power loss once this has returned.
/// Costs no more for much than for little, but for what has to be written first.
pub fn snapshot_create(source: impl AsFd, folder: impl AsFd, name: &str) -> io::Result<()> {
    let mut args = SnapshotArgs {
        fd: source.as_fd().as_raw_fd().into(),
        transaction: 0,
        flags: 0,
        unused: [0; 4],
        name: [0; 4040],
    };
    write_name(name, &mut args.name)?;
    ioctl(folder, SNAP_CREATE, &mut args)
}

/// Takes the subvolume `name` out of the folder; its space comes back in the background.
pub fn subvolume_delete(folder: impl AsFd, name: &str) -> io::Result<()> {
    ioctl(folder, SNAP_DESTROY, &mut volume_args(name)?)
}

/// The id of the subvolume in which an open folder lies; also the id of its quota group.
pub fn subvolume_id(folder: impl AsFd) -> io::Result<u64> {
    let mut args = LookupArgs {
        tree: 0,
        object: FIRST_FREE_OBJECT,
        name: [0; 4080],
    };
    ioctl(folder, INO_LOOKUP, &mut args)?;
    Ok(args.tree)
}

/// Switches quotas on, the cheap kind where the kernel has it. Idempotent.
pub fn quotas_enable(root: impl AsFd) -> io::Result<Quotas> {
    let enable = |command| ioctl(&root, QUOTA_CTL, &mut QuotaArgs { command, status: 0 });
    match enable(QUOTA_ENABLE_SIMPLE) {
        Ok(()) => Ok(Quotas::Simple),
        Err(_) => enable(QUOTA_ENABLE).map(|()| Quotas::Full),
    }
}

/// Bounds the bytes that a subvolume may refer to; beyond them writes fail with `EDQUOT`.
/// `u64::MAX` takes the bound away.
pub fn subvolume_limit(subvolume: impl AsFd, bytes: u64) -> io::Result<()> {
    let mut args = QgroupLimitArgs {
        flags: LIMIT_REFERENCED,
        max_referenced: bytes,
        ..QgroupLimitArgs::default()
    };
    ioctl(subvolume, QGROUP_LIMIT, &mut args)
}

/// Removes the quota group of a subvolume that is gone. `EBUSY` while it is being cleaned up.
pub fn qgroup_delete(root: impl AsFd, id: u64) -> io::Result<()> {
    ioctl(
        root,
        QGROUP_CREATE,
        &mut QgroupCreateArgs {
            create: 0,
            qgroup: id,
        },
    )
}

/// The quota group of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qgroup {
    /// The subvolume's.
    pub id: u64,
    /// Bytes that it can reach; with [`Quotas::Simple`] those that were written in it and that
    /// anybody can still reach.
    pub referenced: u64,
    /// Bytes that no other can reach; with [`Quotas::Simple`] the same as above.
    pub exclusive: u64,
}

/// Quota groups of subvolumes, from id `first` on; at most a few dozen, in order. Ask again from
/// the last id + 1 until none come.
pub fn qgroups(root: impl AsFd, first: u64) -> io::Result<Vec<Qgroup>> {
    let key = SearchKey {
        tree: QUOTA_TREE,
        min_offset: first,
        // Groups of higher levels have their level in the upper 16 bits.
        max_offset: (1 << 48) - 1,
        max_transaction: u64::MAX,
        min_type: QGROUP_INFO_KEY,
        max_type: QGROUP_INFO_KEY,
        items: 32,
        ..SearchKey::default()
    };
    let found = search(root, key, QGROUP_INFO_KEY, 40)?;
    let group = |(id, item): (u64, Vec<u8>)| Qgroup {
        id,
        // After the generation; each is followed by its compressed size.
        referenced: u64_at(&item, 8),
        exclusive: u64_at(&item, 24),
    };
    Ok(found.into_iter().map(group).collect())
}

/// The device of a file system that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// What the file system takes of its device: it writes to nothing beyond.
    pub bytes: u64,
    /// What of that is given out to block groups, bytes.
    pub given_out: u64,
}

pub fn device(root: impl AsFd) -> io::Result<Device> {
    let mut args = DeviceInfoArgs {
        device: FIRST_DEVICE,
        uuid: [0; 16],
        bytes_used: 0,
        total_bytes: 0,
        rest: [0; 507],
    };
    ioctl(root, DEV_INFO, &mut args)?;
    Ok(Device {
        bytes: args.total_bytes,
        given_out: args.bytes_used,
    })
}

/// Where on its device the last block group ends, bytes.
pub fn device_end(root: impl AsFd) -> io::Result<u64> {
    let (mut next, mut end) = (0, 0);
    loop {
        let key = SearchKey {
            tree: DEVICE_TREE,
            min_object: FIRST_DEVICE,
            max_object: FIRST_DEVICE,
            min_offset: next,
            max_offset: u64::MAX,
            max_transaction: u64::MAX,
            min_type: DEVICE_EXTENT_KEY,
            max_type: DEVICE_EXTENT_KEY,
            items: 32,
            ..SearchKey::default()
        };
        let found = search(&root, key, DEVICE_EXTENT_KEY, 32)?;
        let Some((last, item)) = found.last() else {
            return Ok(end);
        };
        // After the tree, the owner and the group's address in `struct btrfs_dev_extent`.
        end = last.saturating_add(u64_at(item, 24));
        next = last + 1;
    }
}

/// Makes the file system end at that byte of its device, further out or further in. Further in,
/// the kernel moves what lies beyond, or fails with `ENOSPC`. At least 256 MiB.
pub fn resize(root: impl AsFd, bytes: u64) -> io::Result<()> {
    ioctl(
        root,
        RESIZE,
        &mut volume_args(&format!("{FIRST_DEVICE}:{bytes}"))?,
    )
}

/// Items of a kind by the last part of their key, those of at least `least` bytes.
fn search(
    root: impl AsFd,
    key: SearchKey,
    kind: u32,
    least: usize,
) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let mut args = SearchArgs {
        key,
        buffer: [0; 4096 - size_of::<SearchKey>()],
    };
    ioctl(root, TREE_SEARCH, &mut args)?;
    let mut found = Vec::new();
    let mut rest = &args.buffer[..];
    for _ in 0..args.key.items {
        let Some((header, after)) = rest.split_at_checked(SEARCH_HEADER) else {
            break;
        };
        let length = u32_at(header, 28) as usize;
        let Some((item, next)) = after.split_at_checked(length) else {
            break;
        };
        if u32_at(header, 24) == kind && item.len() >= least {
            found.push((u64_at(header, 16), item.to_vec()));
        }
        rest = next;
    }
    Ok(found)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |chunk| u32::from_le_bytes(*chunk))
}
