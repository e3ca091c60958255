//! Who holds a data directory, where nobody answers there: an API server or an edge has no socket for
//! administrators, and writes what it is into the lock that it holds.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Role};
use crate::data_dir::{DataDir, lock_path};
use crate::up::doors::{self, Door};

/// What it writes there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub role: Role,
    pub pid: u32,
    /// Where its listeners are, by its settings.
    pub doors: BTreeMap<Door, SocketAddr>,
}

/// More than it can be.
const BYTES_MAX: u64 = 4096;

impl Holder {
    /// This process, in the directory that it has opened.
    pub fn note(config: &Config, dir: &DataDir) -> anyhow::Result<()> {
        let holder = Self {
            role: config.role,
            pid: std::process::id(),
            doors: doors::wanted(config),
        };
        let bytes = serde_json::to_vec(&holder)?;
        let written = dir.lock().write_all_at(&bytes, 0);
        written.with_context(|| format!("note who uses {}", dir.root().display()))
    }

    /// Of a directory. `None`: nobody holds it who wrote anything.
    pub fn of(root: &Path) -> anyhow::Result<Option<Self>> {
        let mut lock = match File::open(lock_path(root)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                anyhow::bail!(
                    "{} is another user's: run this with sudo, or as that user",
                    root.display()
                )
            }
            Err(error) => return Err(error).context("look at the lock"),
        };
        let mut bytes = Vec::new();
        (&mut lock).take(BYTES_MAX).read_to_end(&mut bytes)?;
        let Ok(holder) = serde_json::from_slice::<Self>(&bytes) else {
            return Ok(None);
        };
        // First a look that takes no lock, so that nobody who starts now finds it taken by us.
        if !Path::new(&format!("/proc/{}", holder.pid)).exists() {
            return Ok(None);
        }
        match lock.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Ok(Some(holder)),
            Ok(()) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).context("look at the lock"),
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        let doors = self.doors.iter().map(|(door, at)| match door {
            Door::Http if self.role == Role::Edge => format!("traffic http://{at}"),
            Door::Https if self.role == Role::Edge => format!("traffic https://{at}"),
            Door::Http => format!("API http://{at}"),
            Door::Https => format!("API https://{at}"),
            Door::Redirect => format!("redirects http://{at}"),
            Door::Cluster => format!("calls of members {at}"),
            Door::Health => format!("health http://{at}"),
        });
        let doors: Vec<_> = doors.collect();
        format!(
            "casemate {} runs (process {}): {}",
            self.role.word(),
            self.pid,
            doors.join(", ")
        )
    }
}

/// Whether the directory is of the user that we are.
pub fn is_ours(root: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    std::fs::metadata(lock_path(root)).is_ok_and(|lock| lock.uid() == user)
}
