//! Whether one more sandbox fits. Pure: the caller counts and measures.

use std::sync::Mutex;
use std::time::{Duration, Instant};

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
}

/// What is there now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub sandboxes: u32,
    pub memory_promised_bytes: u64,
    pub memory_total_bytes: u64,
    pub memory_available_bytes: u64,
}

impl AdmissionLimits {
    /// `Err` says which limit stands in the way.
    pub(crate) fn admit(&self, load: &Load, asked: &Resources) -> Result<(), String> {
        if load.sandboxes >= self.sandboxes_max {
            return Err(format!(
                "all {} places for sandboxes are taken",
                self.sandboxes_max
            ));
        }
        let asked = u64::from(asked.memory_mib) * MIB;
        // Precision beyond a byte in a petabyte is of no use here.
        let grant = (load.memory_total_bytes as f64 * self.memory_overcommit) as u64;
        if load.memory_promised_bytes.saturating_add(asked) > grant {
            let (promised, grant) = (load.memory_promised_bytes / MIB, grant / MIB);
            return Err(format!(
                "{promised} MiB of {grant} MiB of memory limits are given out"
            ));
        }
        if load.memory_available_bytes < self.memory_reserve_bytes {
            let free = load.memory_available_bytes / MIB;
            return Err(format!("only {free} MiB of memory are free"));
        }
        Ok(())
    }
}

/// The machine's memory as it was a moment ago: many creates at once ask once.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Option<(Instant, (u64, u64))>>);

/// How long a measurement holds. What was promised meanwhile is counted apart.
const MEMORY_RECENT: Duration = Duration::from_millis(50);

impl Memory {
    /// Like [`measure_memory`].
    pub(crate) fn recent(&self) -> (u64, u64) {
        let mut last = self.0.lock().expect("no holder of this lock panics");
        match *last {
            Some((at, measured)) if at.elapsed() < MEMORY_RECENT => measured,
            _ => {
                let measured = measure_memory();
                *last = Some((Instant::now(), measured));
                measured
            }
        }
    }
}

/// Total and available memory of this machine, bytes.
pub(crate) fn measure_memory() -> (u64, u64) {
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
    };

    #[track_caller]
    fn check(load: Load, expected: Result<(), &str>) {
        assert_eq!(
            LIMITS.admit(&load, &Resources::BASE),
            expected.map_err(String::from)
        );
    }

    #[test]
    fn each_limit_stands_in_the_way_by_name() {
        let room = Load {
            sandboxes: 2,
            memory_promised_bytes: 1536 * MIB,
            memory_total_bytes: 1024 * MIB,
            memory_available_bytes: 100 * MIB,
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
    }

    #[test]
    fn this_machine_has_memory() {
        let (total, available) = measure_memory();
        assert!(total > available && available > 0);
    }
}
