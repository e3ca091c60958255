//! Disk and memory.

use std::path::Path;

use super::Finding;
use crate::config::Config;
use crate::up::sandboxes::disk_reserve_bytes;
use crate::user;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The base template and room to write.
const DISK_MIN: u64 = 3 * GIB;
const DISK_GOOD: u64 = 20 * GIB;
const MEMORY_GOOD: u64 = 2 * GIB;

pub(super) fn disk(config: &Config) -> Finding {
    let data_dir = &config.data_dir;
    let dir = data_dir
        .ancestors()
        .find(|dir| dir.is_dir())
        .unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(dir) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            let found = format!("cannot look at {}: {error}", dir.display());
            return Finding::fatal("disk", found, "Name another data directory");
        }
    };
    // What lies there already is no room that is missing.
    if data_dir.join("node/pool.img").exists() {
        let reserve = disk_reserve_bytes(config, dir);
        let found = format!("{} MiB free in {}", free / MIB, dir.display());
        if free < reserve {
            let then = format!("No sandbox is made below {} MiB", reserve / MIB);
            return Finding::warning("disk", found, then);
        }
        return Finding::good("disk", found);
    }
    let found = format!("{} GiB free in {}", free / GIB, dir.display());
    match free {
        ..DISK_MIN => Finding::fatal("disk", found, "The base template alone needs 3 GiB"),
        DISK_MIN..DISK_GOOD => Finding::warning("disk", found, "20 GiB and more are comfortable"),
        _ => Finding::good("disk", found),
    }
}

/// The control process is not root, and has to get to the data directory.
pub(super) fn way(data_dir: &Path) -> Finding {
    let whole = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.into());
    match user::closed_above(&whole) {
        None => Finding::good("way to the data", whole.display().to_string()),
        Some(closed) => {
            let closed = closed.display();
            let found =
                format!("{closed} is closed to other users, and the control process is one");
            let mend = format!("chmod o+x {closed}, or name another data directory");
            Finding::warning("way to the data", found, mend)
        }
    }
}

pub(super) fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0);
    let found = format!("{} MiB available", kib / 1024);
    if kib * 1024 >= MEMORY_GOOD {
        Finding::good("memory", found)
    } else {
        Finding::warning("memory", found, "2 GiB and more are comfortable")
    }
}
