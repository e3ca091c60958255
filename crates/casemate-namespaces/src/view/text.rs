//! The text of the files that change: as the kernel writes them, from a sandbox's own figures.
//!
//! A file keeps its length for life, so that rewriting it in place never leaves a tail of the former
//! content: what is short is filled up with spaces before its last newline.

use std::fmt::Write;
use std::time::Duration;

use crate::cgroup::{CpuTime, Memory};

/// The kernel counts processor time for programs in hundredths of a second.
const TICKS_PER_SECOND: u128 = 100;
/// Bytes of a line of `stat` at most, and of what follows its processors.
const STAT_LINE_BYTES: usize = 96;
const STAT_TAIL_BYTES: usize = 192;
const LOADAVG_BYTES: usize = 64;
const DISK_BYTES: usize = 48;

/// `/proc/meminfo` under a limit. Bytes in, KiB out.
pub(super) fn meminfo(limit_bytes: u64, memory: &Memory) -> String {
    let free = limit_bytes.saturating_sub(memory.used);
    let files = memory.active_file + memory.inactive_file;
    let available = (free + files + memory.slab_reclaimable).min(limit_bytes);
    let slab = memory.slab_reclaimable + memory.slab_unreclaimable;
    let lines = [
        ("MemTotal", limit_bytes),
        ("MemFree", free),
        ("MemAvailable", available),
        ("Buffers", 0),
        ("Cached", memory.file),
        ("SwapCached", 0),
        ("Active", memory.active_anon + memory.active_file),
        ("Inactive", memory.inactive_anon + memory.inactive_file),
        ("Active(anon)", memory.active_anon),
        ("Inactive(anon)", memory.inactive_anon),
        ("Active(file)", memory.active_file),
        ("Inactive(file)", memory.inactive_file),
        ("Unevictable", memory.unevictable),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", memory.dirty),
        ("Writeback", memory.writeback),
        ("AnonPages", memory.anon),
        ("Mapped", memory.mapped),
        ("Shmem", memory.shmem),
        ("KReclaimable", memory.slab_reclaimable),
        ("Slab", slab),
        ("SReclaimable", memory.slab_reclaimable),
        ("SUnreclaim", memory.slab_unreclaimable),
        ("KernelStack", memory.kernel_stack),
        ("PageTables", memory.page_tables),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", limit_bytes / 2),
        ("Committed_AS", memory.anon + memory.shmem),
        ("VmallocTotal", 0),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
    ];
    let mut text = String::with_capacity(lines.len() * 28 + 64);
    for (name, bytes) in lines {
        line(&mut text, name, bytes >> 10, " kB");
    }
    for name in [
        "HugePages_Total",
        "HugePages_Free",
        "HugePages_Rsvd",
        "HugePages_Surp",
    ] {
        line(&mut text, name, 0, "");
    }
    line(&mut text, "Hugepagesize", 2048, " kB");
    text
}

fn line(text: &mut String, name: &str, value: u64, unit: &str) {
    let name = format!("{name}:");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name:<16}{value:>8}{unit}");
}

/// `/proc/stat` of some processors since a birth.
pub(super) fn stat(
    processors: &[u32],
    born_unix: u64,
    cpu: &CpuTime,
    idle: Duration,
    processes: u64,
) -> String {
    let (user, system, idle) = (ticks(cpu.user), ticks(cpu.system), ticks(idle));
    let mut text = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    let count = processors.len().max(1) as u64;
    for processor in processors {
        // Who ran where is the host's affair: each has its share.
        let (user, system, idle) = (user / count, system / count, idle / count);
        let _ = writeln!(text, "cpu{processor} {user} 0 {system} {idle} 0 0 0 0 0 0");
    }
    let _ = write!(
        text,
        "intr 0\nctxt 0\nbtime {born_unix}\nprocesses {processes}\nprocs_running 1\n\
         procs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n"
    );
    let bytes = STAT_LINE_BYTES * (processors.len() + 1) + STAT_TAIL_BYTES;
    filled(text, bytes)
}

/// What the agent reads: bytes in all and in use. Nothing where no limit is kept.
pub(super) fn disk(limit_bytes: Option<u64>, used: u64) -> String {
    match limit_bytes {
        // The layer's own bookkeeping may go a little over.
        Some(limit) => filled(format!("{limit} {}\n", used.min(limit)), DISK_BYTES),
        None => String::new(),
    }
}

/// `/proc/loadavg`.
pub(super) fn loadavg(load: &Load, processes: u64) -> String {
    let [one, five, fifteen] = load.means;
    let text = format!("{one:.2} {five:.2} {fifteen:.2} 1/{processes} {processes}\n");
    filled(text, LOADAVG_BYTES)
}

/// How many processors were busy, over one, five and fifteen minutes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    means: [f64; 3],
}

impl Load {
    /// So much processor time was spent in that interval.
    pub(super) fn add(&mut self, spent: Duration, interval: Duration) {
        let seconds = interval.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let busy = spent.as_secs_f64() / seconds;
        for (mean, minutes) in self.means.iter_mut().zip([1.0, 5.0, 15.0]) {
            let kept = (-seconds / (60.0 * minutes)).exp();
            *mean = *mean * kept + busy * (1.0 - kept);
        }
    }
}

fn ticks(time: Duration) -> u64 {
    let ticks = time.as_millis() * TICKS_PER_SECOND / 1000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

fn filled(mut text: String, bytes: usize) -> String {
    let missing = bytes.saturating_sub(text.len());
    if text.ends_with('\n') {
        text.pop();
        text.extend(std::iter::repeat_n(' ', missing));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn memory_adds_up_to_the_limit() {
        let memory = Memory {
            used: 100 * MIB,
            file: 30 * MIB,
            active_file: 10 * MIB,
            inactive_file: 20 * MIB,
            slab_reclaimable: 5 * MIB,
            ..Memory::default()
        };
        let text = meminfo(512 * MIB, &memory);
        for line in [
            "MemTotal:         524288 kB",
            "MemFree:          421888 kB",
            "MemAvailable:     457728 kB",
            "Cached:            30720 kB",
            "HugePages_Total:       0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
        let over = Memory {
            used: 600 * MIB,
            ..memory
        };
        assert!(meminfo(512 * MIB, &over).contains("MemFree:               0 kB"));
    }

    #[test]
    fn a_file_keeps_its_length_whatever_it_says() {
        let long = Duration::from_secs(40 * 365 * 86_400);
        let full = Memory {
            used: 64 << 30,
            anon: 64 << 30,
            ..Memory::default()
        };
        let limit = 64 << 30;
        assert_eq!(
            meminfo(limit, &full).len(),
            meminfo(limit, &Memory::default()).len()
        );
        let processors: Vec<_> = (100..164).collect();
        let used = CpuTime {
            user: long * 64,
            system: long * 64,
        };
        let stat = |cpu: &CpuTime, idle| stat(&processors, 1_700_000_000, cpu, idle, 4096);
        let (new, old) = (
            stat(&CpuTime::default(), Duration::ZERO),
            stat(&used, long * 64),
        );
        assert_eq!(new.len(), old.len());
        assert!(old.contains("\nbtime 1700000000\n"));
        let used = disk(Some(u64::MAX), u64::MAX);
        assert_eq!(used.len(), disk(Some(1), 0).len());
        assert!(disk(Some(10), 3).starts_with("10 3 ") && disk(None, 3).is_empty());
        let mut load = Load::default();
        let idle = loadavg(&load, 1);
        load.add(long * 64, long);
        assert_eq!(loadavg(&load, 4096).len(), idle.len());
        assert!(loadavg(&load, 7).starts_with("64.00 64.00 64.00 1/7 7 "));
    }

    #[test]
    fn load_follows_what_is_busy() {
        let mut load = Load::default();
        for _ in 0..60 {
            load.add(Duration::from_secs(2), Duration::from_secs(1));
        }
        let [one, five, fifteen] = load.means;
        assert!(one > 1.2 && one < 1.3, "{one}");
        assert!(five < one && fifteen < five && fifteen > 0.1);
    }

    #[test]
    fn processors_share_what_was_spent() {
        let cpu = CpuTime {
            user: Duration::from_secs(3),
            system: Duration::from_secs(1),
        };
        let text = stat(&[4, 5], 10, &cpu, Duration::from_secs(6), 3);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "cpu  300 0 100 600 0 0 0 0 0 0",
                "cpu4 150 0 50 300 0 0 0 0 0 0",
                "cpu5 150 0 50 300 0 0 0 0 0 0"
            ]
        );
    }
}
