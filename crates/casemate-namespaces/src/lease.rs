//! What instances of one host must not share: ranges of ids and of addresses.
//!
//! Block `k` of 31 is a file below `leases`, naming its instance; whoever uses it holds a lock on
//! the file for as long as it lives. A block whose lock nobody holds is its instance's again after
//! a restart, and free for others only when none of that instance's sandboxes run.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use casemate_types::InstanceId;
use ipnet::Ipv4Net;

use crate::{IDS_PER_SLOT, cgroup};

/// Blocks on one host; more instances at once are refused.
const BLOCKS: u16 = 31;
/// Slots that a block has ids and addresses for.
const SLOTS_PER_BLOCK: u32 = 2048;
/// Prefix of a block's subnet: 2048 addresses.
const BLOCK_PREFIX: u8 = 21;

/// Why an instance has no block.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("instance {0} is already served by another process")]
    Held(InstanceId),
    #[error("all {BLOCKS} id and address blocks of this host are in use: end another instance")]
    Exhausted,
    #[error("range {0} is too small for slots: it must be a /21 or larger")]
    Range(Ipv4Net),
    #[error("cannot use {path}", path = path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A block, held until dropped; the file stays for the next start.
#[derive(Debug)]
pub struct Lease {
    block: u16,
    subnet: Ipv4Net,
    path: PathBuf,
    former: Option<InstanceId>,
    _locked: File,
}

impl Lease {
    /// Takes the block that the instance had, or a free one. `range` is divided among blocks.
    pub fn take(folder: &Path, instance: &InstanceId, range: Ipv4Net) -> Result<Self, LeaseError> {
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |source| LeaseError::File { path, source }
        };
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let guard = folder.join("lock");
        let lock = File::create(&guard).map_err(at(&guard))?;
        lock.lock().map_err(at(&guard))?;
        let blocks = BLOCKS.min(subnets(range)?);
        let mut candidates: Vec<u16> = (0..blocks).collect();
        // Its own first.
        candidates.sort_by_key(|block| owner(&block_path(folder, *block)) != instance.as_str());
        for block in candidates {
            let path = block_path(folder, block);
            let held_by = owner(&path);
            let mut file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(at(&path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if held_by == instance.as_str() => {
                    return Err(LeaseError::Held(instance.clone()));
                }
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
            }
            if held_by != instance.as_str() && in_use(&held_by) {
                continue;
            }
            write_owner(&mut file, instance).map_err(at(&path))?;
            let subnet = subnet(range, block);
            return Ok(Self {
                block,
                subnet,
                path,
                former: InstanceId::parse(&held_by)
                    .ok()
                    .filter(|former| former != instance),
                _locked: file,
            });
        }
        Err(LeaseError::Exhausted)
    }

    /// First of the slot's ids on the host.
    pub fn first_id(&self, slot: u16) -> u32 {
        let block = u32::from(self.block) + 1;
        (block * SLOTS_PER_BLOCK + u32::from(slot)) * IDS_PER_SLOT
    }

    /// Addresses of the block.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// Who had the block before and is gone: what it left on these addresses is in the way.
    pub fn former(&self) -> Option<&InstanceId> {
        self.former.as_ref()
    }

    /// Gives the block up for good.
    pub fn release(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn block_path(folder: &Path, block: u16) -> PathBuf {
    folder.join(block.to_string())
}

fn owner(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(path) {
        // A file that is no owner's name belongs to nobody.
        let _ = file.take(64).read_to_string(&mut text);
    }
    text.trim().to_owned()
}

/// Whether sandboxes of an instance without a process run on. When that cannot be told, they do.
fn in_use(instance: &str) -> bool {
    match InstanceId::parse(instance) {
        Ok(_) => cgroup::instance_is_populated(instance).unwrap_or(true),
        Err(_) => false,
    }
}

fn write_owner(file: &mut File, instance: &InstanceId) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{instance}")
}

fn subnets(range: Ipv4Net) -> Result<u16, LeaseError> {
    match BLOCK_PREFIX.checked_sub(range.prefix_len()) {
        Some(bits) => Ok(1_u16.checked_shl(u32::from(bits)).unwrap_or(u16::MAX)),
        None => Err(LeaseError::Range(range)),
    }
}

fn subnet(range: Ipv4Net, block: u16) -> Ipv4Net {
    let first = u32::from(range.network()) + u32::from(block) * SLOTS_PER_BLOCK;
    Ipv4Net::new_assert(first.into(), BLOCK_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    fn range() -> Ipv4Net {
        "100.64.0.0/10".parse().unwrap()
    }

    fn folder(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("casemate-lease-{name}-{}", std::process::id()));
        // Left by a former run.
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn two_instances_share_nothing() {
        let at = folder("two");
        let a = Lease::take(&at, &instance("aaaaaaaa"), range()).unwrap();
        let b = Lease::take(&at, &instance("bbbbbbbb"), range()).unwrap();
        assert_ne!(a.subnet(), b.subnet());
        assert!(a.first_id(2047) + IDS_PER_SLOT <= b.first_id(0));
        assert_eq!(a.first_id(0), 1 << 27);
        std::fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn an_instance_gets_its_block_back_but_not_twice() {
        let at = folder("again");
        let _other = Lease::take(&at, &instance("aaaaaaaa"), range()).unwrap();
        let first = Lease::take(&at, &instance("bbbbbbbb"), range()).unwrap();
        let twice = Lease::take(&at, &instance("bbbbbbbb"), range());
        assert!(matches!(twice, Err(LeaseError::Held(_))));
        let subnet = first.subnet();
        drop(first);
        let again = Lease::take(&at, &instance("bbbbbbbb"), range()).unwrap();
        assert_eq!(again.subnet(), subnet);
        std::fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn a_range_of_one_block_serves_one_instance() {
        let at = folder("one");
        let range = "10.1.0.0/21".parse().unwrap();
        let held = Lease::take(&at, &instance("aaaaaaaa"), range).unwrap();
        let full = Lease::take(&at, &instance("bbbbbbbb"), range);
        assert!(matches!(full, Err(LeaseError::Exhausted)));
        drop(held);
        // Its holder is gone and has no sandboxes.
        let taken = Lease::take(&at, &instance("bbbbbbbb"), range).unwrap();
        assert_eq!(taken.subnet(), range);
        std::fs::remove_dir_all(at).unwrap();
    }
}
