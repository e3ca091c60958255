//! What the pool of writable layers holds, counted.

use std::io;
use std::path::Path;

use tokio::process::Command;

use super::SLOT_STOCK;
use crate::chaos::error::ChaosError;

/// Allocation of the file system itself, which moves by itself, in bytes.
const SPACE_SLACK: u64 = 32 << 20;

#[derive(Debug)]
pub(in crate::chaos) struct Held {
    /// Read-only layers of templates, and what is being made or removed of them.
    sealed: u64,
    /// Snapshots, what pauses with files alone kept, and states of builds.
    kept: u64,
    /// On their way out.
    leaving: u64,
    in_stock: u64,
    /// Beyond the stock: of sandboxes, and copies of snapshots that were made ahead.
    layers: u64,
    /// Subvolumes and their accounts beyond layers.
    subvolumes: u64,
    accounts: u64,
    used: u64,
}

impl Held {
    pub(super) async fn of(pool: &Path, layers: &Path, in_stock: u64) -> Result<Self, ChaosError> {
        // What was deleted is cleaned up at the file system's leisure, otherwise.
        btrfs(pool, &["filesystem", "sync"]).await?;
        let count = |name: &str| match std::fs::read_dir(pool.join(name)) {
            Ok(items) => Ok(items.count() as u64),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(ChaosError::io("look into the pool")(error)),
        };
        let all = count("w")?;
        let named = std::fs::read_dir(layers).map_err(ChaosError::io("look at the layers"))?;
        let is_sealed = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"t-");
        let sealed = named.flatten().filter(|one| is_sealed(&one.file_name()));
        let room = rustix::fs::statvfs(pool).map_err(io::Error::from);
        let room = room.map_err(ChaosError::io("measure the pool"))?;
        Ok(Self {
            sealed: sealed.count() as u64,
            kept: count("kept")?,
            leaving: count("x")?,
            in_stock,
            layers: all.saturating_sub(in_stock),
            subvolumes: btrfs(pool, &["subvolume", "list"])
                .await?
                .saturating_sub(all),
            accounts: btrfs(pool, &["qgroup", "show"]).await?.saturating_sub(all),
            used: (room.f_blocks - room.f_bfree) * room.f_frsize,
        })
    }

    /// Its stock is full, and nothing is under way to it.
    pub(super) fn is_rested(&self) -> bool {
        self.in_stock >= SLOT_STOCK && self.layers == 0
    }

    /// What there is more of than there was, in words.
    pub(in crate::chaos) fn beyond(&self, fresh: &Self) -> Option<String> {
        let counts = [
            ("layers of templates", self.sealed, fresh.sealed),
            ("kept files", self.kept, fresh.kept),
            ("layers in the trash", self.leaving, fresh.leaving),
            ("layers", self.layers, fresh.layers),
            ("subvolumes", self.subvolumes, fresh.subvolumes),
            ("accounts of subvolumes", self.accounts, fresh.accounts),
            ("bytes", self.used, fresh.used + SPACE_SLACK),
        ];
        let more = counts.iter().filter(|(_, now, then)| now > then);
        let more = more.map(|(what, now, then)| format!("{now} {what} where {then} were"));
        let more: Vec<_> = more.collect();
        (!more.is_empty()).then(|| more.join(", "))
    }
}

/// Lines that it answers.
async fn btrfs(pool: &Path, verb: &[&str]) -> Result<u64, ChaosError> {
    let ran = Command::new("btrfs").args(verb).arg(pool).output().await;
    let ran = ran.map_err(ChaosError::io("run `btrfs`"))?;
    match ran.status.success() {
        true => Ok(ran.stdout.iter().filter(|byte| **byte == b'\n').count() as u64),
        false => {
            let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
            Err(ChaosError::io("look into the pool")(io::Error::other(said)))
        }
    }
}
