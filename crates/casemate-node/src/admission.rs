//! Whether one more sandbox fits. Pure: the caller counts and measures.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use casemate_rpc::NodeError;
use casemate_types::Resources;

const MIB: u64 = 1024 * 1024;

/// What an operator grants (decision 19).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdmissionLimits {
    /// Sandboxes at once; beyond it creates are refused.
    pub sandboxes_max: u32,
    /// The sum of memory limits may be this many times the machine's memory.
    pub memory_overcommit: f64,
    /// Memory that must stay available, bytes; below it creates are refused.
    pub memory_reserve_bytes: u64,
    /// What must stay free on the disk of the data directory, bytes; below it creates are refused.
    pub disk_reserve_bytes: u64,
}

/// A sandbox that could write no more than this is not worth making.
pub(crate) const LAYERS_LEFT_MIN: u64 = 64 * MIB;

/// What is there now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub sandboxes: u32,
    pub memory_promised_bytes: u64,
    pub memory_total_bytes: u64,
    pub memory_available_bytes: u64,
    pub disk_free_bytes: u64,
    /// What sandboxes can write together.
    pub layers_left_bytes: u64,
}

impl AdmissionLimits {
    /// What the memory limits of all that runs may come to on such a machine, bytes.
    pub(crate) fn memory_grant(&self, memory_total_bytes: u64) -> u64 {
        (memory_total_bytes as f64 * self.memory_overcommit) as u64
    }

    /// `Err` says which limit stands in the way.
    pub(crate) fn admit(&self, load: &Load, asked: &Resources) -> Result<(), NodeError> {
        if load.sandboxes >= self.sandboxes_max {
            let max = self.sandboxes_max;
            return full(format!("all {max} places for sandboxes are taken"));
        }
        let asked = u64::from(asked.memory_mib) * MIB;
        // Precision beyond a byte in a petabyte is of no use here.
        let grant = self.memory_grant(load.memory_total_bytes);
        if load.memory_promised_bytes.saturating_add(asked) > grant {
            let (promised, grant) = (load.memory_promised_bytes / MIB, grant / MIB);
            return full(format!(
                "{promised} MiB of {grant} MiB of memory limits are given out"
            ));
        }
        if load.memory_available_bytes < self.memory_reserve_bytes {
            let free = load.memory_available_bytes / MIB;
            return full(format!("only {free} MiB of memory are free"));
        }
        if load.disk_free_bytes < self.disk_reserve_bytes {
            let (free, reserve) = (load.disk_free_bytes / MIB, self.disk_reserve_bytes / MIB);
            return disk_full(format!(
                "the disk is full: {free} MiB are free, {reserve} MiB must stay free"
            ));
        }
        if load.layers_left_bytes < LAYERS_LEFT_MIN {
            let left = load.layers_left_bytes / MIB;
            return disk_full(format!(
                "the disk of sandboxes is full: {left} MiB are left"
            ));
        }
        Ok(())
    }
}

impl AdmissionLimits {
    /// The same of a sandbox that nobody has asked for: a quarter of what is granted is left to those
    /// that somebody asks for, and twice the reserves stay free.
    pub(crate) fn admit_warm(&self, load: &Load, asked: &Resources) -> Result<(), NodeError> {
        let grant = self.memory_grant(load.memory_total_bytes);
        let seen = Load {
            sandboxes: load.sandboxes.saturating_add(self.sandboxes_max / 4),
            memory_promised_bytes: load.memory_promised_bytes.saturating_add(grant / 4),
            memory_available_bytes: load
                .memory_available_bytes
                .saturating_sub(self.memory_reserve_bytes),
            disk_free_bytes: load.disk_free_bytes.saturating_sub(self.disk_reserve_bytes),
            layers_left_bytes: load.layers_left_bytes.saturating_sub(LAYERS_LEFT_MIN),
            ..*load
        };
        self.admit(&seen, asked)
    }
}

fn full(what: String) -> Result<(), NodeError> {
    Err(NodeError::Full { what })
}

fn disk_full(what: String) -> Result<(), NodeError> {
    Err(NodeError::DiskFull { what })
}

/// The machine as it was a moment ago: many creates at once ask once.
#[derive(Debug, Default)]
pub(crate) struct Machine(Mutex<Option<(Instant, Measured)>>);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub memory_total_bytes: u64,
    pub memory_available_bytes: u64,
    pub disk_free_bytes: u64,
}

/// How long a measurement holds. What was promised meanwhile is counted apart.
const RECENT: Duration = Duration::from_millis(50);

impl Machine {
    /// `dir`: of the data directory.
    pub(crate) fn recent(&self, dir: &Path) -> Measured {
        let mut last = self.0.lock().expect("no holder of this lock panics");
        match *last {
            Some((at, measured)) if at.elapsed() < RECENT => measured,
            _ => {
                let measured = Measured::now(dir);
                *last = Some((Instant::now(), measured));
                measured
            }
        }
    }
}

impl Machine {
    /// Something was given back: the next look measures anew.
    pub(crate) fn forget(&self) {
        *self.0.lock().expect("no holder of this lock panics") = None;
    }
}

impl Measured {
    pub(crate) fn now(dir: &Path) -> Self {
        let (memory_total_bytes, memory_available_bytes) = measure_memory();
        Self {
            memory_total_bytes,
            memory_available_bytes,
            // A disk that cannot be asked has nothing to write to.
            disk_free_bytes: rustix::fs::statvfs(dir)
                .map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        }
    }
}

/// Of this machine; 0 where it cannot be read.
pub fn memory_total_bytes() -> u64 {
    measure_memory().0
}

/// Total and available memory of this machine, bytes.
fn measure_memory() -> (u64, u64) {
    // Without /proc nothing is known: no memory, so that admission refuses.
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (
        field("MemTotal:").unwrap_or(0) * 1024,
        field("MemAvailable:").unwrap_or(0) * 1024,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AdmissionLimits = AdmissionLimits {
        sandboxes_max: 3,
        memory_overcommit: 2.0,
        memory_reserve_bytes: 100 * MIB,
        disk_reserve_bytes: 512 * MIB,
    };

    #[track_caller]
    fn check(load: Load, expected: Result<(), &str>) {
        let said = LIMITS
            .admit(&load, &Resources::BASE)
            .map_err(|refused| match refused {
                NodeError::Full { what } | NodeError::DiskFull { what } => what,
                other => other.to_string(),
            });
        assert_eq!(said, expected.map_err(String::from));
    }

    #[test]
    fn each_limit_stands_in_the_way_by_name() {
        let room = Load {
            sandboxes: 2,
            memory_promised_bytes: 1536 * MIB,
            memory_total_bytes: 1024 * MIB,
            memory_available_bytes: 100 * MIB,
            disk_free_bytes: 512 * MIB,
            layers_left_bytes: 64 * MIB,
        };
        check(room, Ok(()));
        check(
            Load {
                sandboxes: 3,
                ..room
            },
            Err("all 3 places for sandboxes are taken"),
        );
        check(
            Load {
                memory_promised_bytes: 1537 * MIB,
                ..room
            },
            Err("1537 MiB of 2048 MiB of memory limits are given out"),
        );
        check(
            Load {
                memory_available_bytes: 99 * MIB,
                ..room
            },
            Err("only 99 MiB of memory are free"),
        );
        check(
            Load {
                disk_free_bytes: 511 * MIB,
                ..room
            },
            Err("the disk is full: 511 MiB are free, 512 MiB must stay free"),
        );
        check(
            Load {
                layers_left_bytes: 63 * MIB,
                ..room
            },
            Err("the disk of sandboxes is full: 63 MiB are left"),
        );
    }

    #[test]
    fn one_that_nobody_asked_for_needs_more_room() {
        let limits = AdmissionLimits {
            sandboxes_max: 8,
            ..LIMITS
        };
        let room = Load {
            sandboxes: 5,
            memory_promised_bytes: 1024 * MIB,
            memory_total_bytes: 1024 * MIB,
            memory_available_bytes: 200 * MIB,
            disk_free_bytes: 1024 * MIB,
            layers_left_bytes: 128 * MIB,
        };
        let admits = |load: Load| limits.admit_warm(&load, &Resources::BASE).is_ok();
        assert!(admits(room));
        let less = [
            Load {
                sandboxes: 6,
                ..room
            },
            Load {
                memory_promised_bytes: 1025 * MIB,
                ..room
            },
            Load {
                memory_available_bytes: 199 * MIB,
                ..room
            },
            Load {
                disk_free_bytes: 1023 * MIB,
                ..room
            },
            Load {
                layers_left_bytes: 127 * MIB,
                ..room
            },
        ];
        for load in less {
            assert!(!admits(load), "{load:?}");
            assert_eq!(limits.admit(&load, &Resources::BASE), Ok(()));
        }
    }

    #[test]
    fn this_machine_has_memory() {
        let (total, available) = measure_memory();
        assert!(total > available && available > 0);
    }
}
