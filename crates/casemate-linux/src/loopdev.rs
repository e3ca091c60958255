//! Loop devices: a file as a disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const CTL_GET_FREE: libc::c_ulong = 0x4C82;
const CONFIGURE: libc::c_ulong = 0x4C0A;
const CLEAR: libc::c_ulong = 0x4C01;
const GET_STATUS: libc::c_ulong = 0x4C05;
const FLAG_AUTOCLEAR: u32 = 4;
const FLAG_DIRECT_IO: u32 = 16;
/// Other programs take free devices too; after this many lost races something else is wrong.
const RACES_MAX: usize = 64;

/// Layout of `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// Layout of `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// Attaches a file to a free device, which frees itself with its last user: keep the returned
/// handle open until the device is mounted. Direct I/O is used where the file allows it.
pub fn attach(backing: impl AsFd) -> io::Result<(PathBuf, File)> {
    let control = open_rw(Path::new("/dev/loop-control"))?;
    for _ in 0..RACES_MAX {
        // SAFETY: this request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open_rw(&path)?;
        let attached =
            configure(&device, &backing, FLAG_AUTOCLEAR | FLAG_DIRECT_IO).or_else(|error| {
                match error.raw_os_error() {
                    Some(libc::EBUSY) => Err(error),
                    _ => configure(&device, &backing, FLAG_AUTOCLEAR),
                }
            });
        match attached {
            Ok(()) => return Ok((path, device)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => continue,
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

fn configure(device: &File, backing: &impl AsFd, flags: u32) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid value of this struct of integers.
    let mut config: Config = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(backing.as_fd().as_raw_fd())
        .map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    config.info.flags = flags;
    // SAFETY: `config` has the kernel's layout and lives over the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &config) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The device to which a file is attached, by the file's identity and not its name.
pub fn find(backing: &File) -> io::Result<Option<PathBuf>> {
    let wanted = backing.metadata()?;
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("loop") {
            continue;
        }
        let path = Path::new("/dev").join(&name);
        let Ok(device) = File::open(&path) else {
            continue;
        };
        // SAFETY: all-zero bytes are a valid value of this struct of integers.
        let mut info: Info = unsafe { std::mem::zeroed() };
        // SAFETY: `info` has the kernel's layout and lives over the call.
        let answer = unsafe { libc::ioctl(device.as_raw_fd(), GET_STATUS, &mut info) };
        // The kernel gives the file's device in its own encoding: compare major and minor.
        if answer == 0 && info.inode == wanted.ino() && same_device(info.device, wanted.dev()) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// `lo_device` is the kernel's "huge" encoding, `st_dev` the C library's.
fn same_device(huge: u64, dev: u64) -> bool {
    let major = (huge & 0xfff00) >> 8;
    let minor = (huge & 0xff) | ((huge >> 12) & 0xfff00);
    (major, minor) == (u64::from(libc::major(dev)), u64::from(libc::minor(dev)))
}

/// Frees a device once its last user is gone.
pub fn detach(device: &Path) -> io::Result<()> {
    let device = open_rw(device)?;
    // SAFETY: this request takes no argument.
    match unsafe { libc::ioctl(device.as_raw_fd(), CLEAR) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn open_rw(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}
