//! What writable layers take, for whoever asks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use casemate_runtime::DiskLimit;
use casemate_types::{SandboxId, SnapshotId};

use super::{Entry, Shared, lock};

/// The pool of writable layers and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpace {
    /// A folder on its file system.
    pub root: PathBuf,
    /// Whether the file system counts what each layer holds.
    pub is_counted: bool,
    /// Those that run.
    pub sandboxes: Vec<SandboxSpace>,
    /// Kept files, with the bytes of each where they are known.
    pub kept: BTreeMap<SnapshotId, Option<u64>>,
    /// Layers of sandboxes that ended, which are not deleted yet.
    pub waiting: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpace {
    pub sandbox: SandboxId,
    /// `None` where nothing counts it, and for one that ends meanwhile.
    pub used_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
}

/// Blocks for a call of the kernel for each sandbox.
pub(super) fn measure(shared: &Shared) -> std::io::Result<PoolSpace> {
    let is_counted = shared.pool.disk_limit() == DiskLimit::Enforced;
    let running: Vec<_> = {
        let table = lock(&shared.table);
        let running = table.iter().filter_map(|(sandbox, entry)| match entry {
            Entry::Running(running) => Some((sandbox.clone(), running.clone())),
            Entry::Making | Entry::Ending => None,
        });
        running.collect()
    };
    let sandboxes = running.into_iter().map(|(sandbox, running)| SandboxSpace {
        sandbox,
        used_bytes: match is_counted {
            true => shared.pool.used_bytes(&running.layer).ok(),
            false => None,
        },
        limit_bytes: running
            .facts
            .machine
            .as_ref()
            .and_then(|one| one.disk_bytes),
    });
    Ok(PoolSpace {
        root: shared.pool.root().to_owned(),
        is_counted,
        sandboxes: sandboxes.collect(),
        kept: shared.pool.kept()?,
        waiting: shared.pool.waiting()?,
    })
}
