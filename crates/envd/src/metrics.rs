//! `GET /metrics`: what the sandbox uses of processor, memory and disk.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use rustix::fs::statvfs;
use serde::Serialize;

use crate::answer::{Answer, empty, json, not_stored};
use crate::guest::Guest;

const MIB: u64 = 1024 * 1024;

/// Bytes of the platform's file about the disk, at most.
const DISK_BYTES: usize = 64;

/// Processor time at the last call, and what that call answered.
#[derive(Default)]
pub struct CpuSince(Cell<(CpuTime, f64)>);

impl CpuSince {
    /// Percent since the last call. The platform writes figures each second only: between two the
    /// answer stays.
    fn percent(&self, now: CpuTime) -> f64 {
        let (before, last) = self.0.get();
        let percent = match before.total == now.total {
            true => last,
            false => used(before, now),
        };
        self.0.set((now, percent));
        percent
    }
}

/// Where the figures of the disk come from: the platform's file, else the file system, which shows
/// what all sandboxes share.
#[derive(Debug)]
pub struct Disk(Option<File>);

impl Disk {
    pub fn new(file: Option<OwnedFd>) -> Self {
        Self(file.map(File::from))
    }

    /// Bytes in all and in use.
    fn read(&self) -> Option<(u64, u64)> {
        self.of_platform().or_else(|| {
            let disk = statvfs("/").ok()?;
            let total = disk.f_blocks.saturating_mul(disk.f_frsize);
            let available = disk.f_bavail.saturating_mul(disk.f_frsize);
            Some((total, total.saturating_sub(available)))
        })
    }

    fn of_platform(&self) -> Option<(u64, u64)> {
        let mut buffer = [0; DISK_BYTES];
        let length = self.0.as_ref()?.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).ok()?;
        let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct CpuTime {
    busy: u64,
    total: u64,
}

#[derive(Serialize)]
struct Metrics {
    ts: u64,
    cpu_count: u64,
    cpu_used_pct: f64,
    mem_total: u64,
    mem_used: u64,
    mem_cache: u64,
    mem_total_mib: u64,
    mem_used_mib: u64,
    disk_total: u64,
    disk_used: u64,
}

pub fn metrics(guest: &Guest) -> Answer {
    match read(&guest.cpu, &guest.disk).and_then(|metrics| serde_json::to_string(&metrics).ok()) {
        Some(body) => not_stored(json(body)),
        None => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn read(cpu: &CpuSince, disk: &Disk) -> Option<Metrics> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let (now, cpu_count) = cpu_time(&stat)?;
    let memory = memory(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let (disk_total, disk_used) = disk.read()?;
    Some(Metrics {
        ts: SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs(),
        cpu_count,
        cpu_used_pct: cpu.percent(now),
        mem_total: memory.total,
        mem_used: memory.used,
        mem_cache: memory.cache,
        mem_total_mib: memory.total / MIB,
        mem_used_mib: memory.used / MIB,
        disk_total,
        disk_used,
    })
}

/// The sum over all processors, and how many there are.
fn cpu_time(stat: &str) -> Option<(CpuTime, u64)> {
    let mut lines = stat.lines().take_while(|line| line.starts_with("cpu"));
    let all: Vec<u64> = lines
        .next()?
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; what follows is counted in user already.
    let total = all.iter().take(8).sum();
    let idle = all.get(3)? + all.get(4)?;
    Some((
        CpuTime {
            busy: total - idle,
            total,
        },
        lines.count() as u64,
    ))
}

/// Percent of all processors, with two decimals. Nothing at the first call.
fn used(before: CpuTime, now: CpuTime) -> f64 {
    let total = now.total.saturating_sub(before.total);
    if before == CpuTime::default() || total == 0 {
        return 0.0;
    }
    let busy = now.busy.saturating_sub(before.busy).min(total);
    (busy as f64 / total as f64 * 10_000.0).round() / 100.0
}

#[derive(Debug, PartialEq, Eq)]
struct Memory {
    total: u64,
    used: u64,
    cache: u64,
}

fn memory(meminfo: &str) -> Option<Memory> {
    let fields: HashMap<&str, u64> = meminfo
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let kib: u64 = value.split_whitespace().next()?.parse().ok()?;
            Some((name, kib.saturating_mul(1024)))
        })
        .collect();
    let field = |name| fields.get(name).copied().unwrap_or_default();
    let total = fields.get("MemTotal").copied()?;
    let cache = field("Cached") + field("SReclaimable");
    let unused = field("MemFree") + field("Buffers") + cache;
    Some(Memory {
        total,
        used: total.saturating_sub(unused),
        cache,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time() {
        let stat = "cpu  10 0 20 60 10 0 0 0 5 0\ncpu0 1 2\ncpu1 1 2\nintr 5\n";
        let (now, count) = cpu_time(stat).unwrap();
        assert_eq!(
            (now, count),
            (
                CpuTime {
                    busy: 30,
                    total: 100
                },
                2
            )
        );
        let later = CpuTime {
            busy: 31,
            total: 103,
        };
        assert!((used(now, later) - 33.33).abs() < f64::EPSILON);
        assert!(used(CpuTime::default(), now).abs() < f64::EPSILON);
        assert!(used(later, now).abs() < f64::EPSILON);
        let since = CpuSince::default();
        let answers = [now, later, later].map(|time| since.percent(time));
        assert_eq!(answers, [0.0, 33.33, 33.33]);
    }

    #[test]
    fn the_platform_s_figures_of_the_disk_come_first() {
        use std::io::Write;
        let file = |text: &str| {
            let memory = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC);
            let mut file = File::from(memory.unwrap());
            file.write_all(text.as_bytes()).unwrap();
            Disk::new(Some(file.into()))
        };
        assert_eq!(file("1000 30          \n").read(), Some((1000, 30)));
        // What says nothing is as good as none.
        for silent in [file(""), file("1000"), Disk::new(None)] {
            let (total, used) = silent.read().unwrap();
            assert!(total > 1000 && used <= total, "{used} of {total}");
        }
    }

    #[test]
    fn memory_use() {
        let text =
            "MemTotal: 100 kB\nMemFree: 40 kB\nBuffers: 5 kB\nCached: 20 kB\nSReclaimable: 3 kB\n";
        let expected = Memory {
            total: 102_400,
            used: 32_768,
            cache: 23_552,
        };
        assert_eq!(memory(text), Some(expected));
        assert_eq!(memory("MemFree: 1 kB\n"), None);
    }
}
