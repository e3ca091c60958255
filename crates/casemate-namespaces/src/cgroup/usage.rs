//! What a sandbox uses, as its groups count it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};

use super::sandbox::read_at;
use super::{Cgroups, Tree};

/// Processor time spent in programs and in the kernel for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

/// Memory in bytes. What the host's kernel does not tell apart is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// What the limit is about.
    pub(crate) used: u64,
    pub(crate) anon: u64,
    /// Content of files, shared memory included.
    pub(crate) file: u64,
    pub(crate) shmem: u64,
    pub(crate) mapped: u64,
    pub(crate) dirty: u64,
    pub(crate) writeback: u64,
    pub(crate) active_anon: u64,
    pub(crate) inactive_anon: u64,
    pub(crate) active_file: u64,
    pub(crate) inactive_file: u64,
    pub(crate) unevictable: u64,
    pub(crate) slab_reclaimable: u64,
    pub(crate) slab_unreclaimable: u64,
    pub(crate) kernel_stack: u64,
    pub(crate) page_tables: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu: CpuTime,
    pub(crate) memory: Memory,
    pub(crate) processes: u64,
}

/// An open file that says how much processor time a group has spent: cheap to ask again.
#[derive(Debug)]
pub(crate) struct CpuClock {
    file: File,
    unified: bool,
}

/// More than the first lines that are looked at.
const CLOCK_BYTES: usize = 256;

impl CpuClock {
    pub(crate) fn read(&self) -> io::Result<Duration> {
        let mut buffer = [0; CLOCK_BYTES];
        let length = self.file.read_at(&mut buffer, 0)?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        let spent = match self.unified {
            true => figure(&text, "usage_usec").map(Duration::from_micros),
            false => text.trim().parse().ok().map(Duration::from_nanos),
        };
        spent.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

impl Cgroups {
    /// The clock of a sandbox's processor time.
    pub(crate) fn cpu_clock(&self, name: &str) -> io::Result<CpuClock> {
        let v1 = self.v1.iter().find(|tree| tree.hierarchy.has("cpuacct"));
        // Version 2 counts it without any controller.
        let (tree, file) = match (v1, &self.unified) {
            (Some(tree), _) => (tree, "cpuacct.usage"),
            (None, Some(tree)) => (tree, "cpu.stat"),
            (None, None) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = format!("{name}/{file}");
        let file = openat(&tree.instance, path, flags, Mode::empty())?;
        Ok(CpuClock {
            file: file.into(),
            unified: v1.is_none(),
        })
    }

    /// All figures of a sandbox.
    pub(crate) fn usage(&self, name: &str) -> io::Result<Usage> {
        let read = |tree: &Tree, file: &str| read_at(&tree.instance, &format!("{name}/{file}"));
        let v1 = |controller| {
            let mut trees = self.v1.iter();
            trees.find(|tree| tree.hierarchy.has(controller))
        };
        let mut usage = Usage::default();
        match (v1("cpuacct"), &self.unified) {
            (Some(tree), _) => usage.cpu = cpu_v1(&read(tree, "cpuacct.stat")?),
            (None, Some(tree)) => usage.cpu = cpu_v2(&read(tree, "cpu.stat")?),
            (None, None) => {}
        }
        match (v1("memory"), &self.unified) {
            (Some(tree), _) => {
                usage.memory = memory_v1(&read(tree, "memory.stat")?);
                usage.memory.used = number(&read(tree, "memory.usage_in_bytes")?);
            }
            (None, Some(tree)) => {
                usage.memory = memory_v2(&read(tree, "memory.stat")?);
                usage.memory.used = number(&read(tree, "memory.current")?);
            }
            (None, None) => {}
        }
        if let Some(tree) = self.with("pids") {
            usage.processes = number(&read(tree, "pids.current")?);
        }
        Ok(usage)
    }
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The value of a line `name value`.
fn figure(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Version 1 counts in ticks.
fn cpu_v1(stat: &str) -> CpuTime {
    let ticks = |name| Duration::from_millis(figure(stat, name).unwrap_or(0) * 10);
    CpuTime {
        user: ticks("user"),
        system: ticks("system"),
    }
}

fn cpu_v2(stat: &str) -> CpuTime {
    let micros = |name| Duration::from_micros(figure(stat, name).unwrap_or(0));
    CpuTime {
        user: micros("user_usec"),
        system: micros("system_usec"),
    }
}

fn memory_v1(stat: &str) -> Memory {
    let bytes = |name: &str| figure(stat, name).unwrap_or(0);
    Memory {
        anon: bytes("rss"),
        file: bytes("cache"),
        mapped: bytes("mapped_file"),
        ..common(&bytes)
    }
}

fn memory_v2(stat: &str) -> Memory {
    let bytes = |name: &str| figure(stat, name).unwrap_or(0);
    Memory {
        anon: bytes("anon"),
        file: bytes("file"),
        mapped: bytes("file_mapped"),
        dirty: bytes("file_dirty"),
        writeback: bytes("file_writeback"),
        slab_reclaimable: bytes("slab_reclaimable"),
        slab_unreclaimable: bytes("slab_unreclaimable"),
        kernel_stack: bytes("kernel_stack"),
        page_tables: bytes("pagetables"),
        ..common(&bytes)
    }
}

/// What both versions call by the same name.
fn common(bytes: &impl Fn(&str) -> u64) -> Memory {
    Memory {
        shmem: bytes("shmem"),
        dirty: bytes("dirty"),
        writeback: bytes("writeback"),
        active_anon: bytes("active_anon"),
        inactive_anon: bytes("inactive_anon"),
        active_file: bytes("active_file"),
        inactive_file: bytes("inactive_file"),
        unevictable: bytes("unevictable"),
        ..Memory::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_the_same_in_their_own_words() {
        let one = memory_v1(
            "cache 30\nrss 50\nshmem 3\nmapped_file 4\ninactive_file 20\nactive_file 7\n",
        );
        let two = memory_v2(
            "anon 50\nfile 30\nshmem 3\nfile_mapped 4\ninactive_file 20\nactive_file 7\n",
        );
        assert_eq!(one, two);
        assert_eq!((one.anon, one.file, one.inactive_file), (50, 30, 20));
        let one = cpu_v1("user 150\nsystem 20\n");
        let two = cpu_v2("usage_usec 1700000\nuser_usec 1500000\nsystem_usec 200000\n");
        assert_eq!(one, two);
        assert_eq!(one.user, Duration::from_millis(1500));
    }

    #[test]
    fn a_name_is_not_found_in_a_longer_one() {
        assert_eq!(figure("rss_huge 5\nrss 7\n", "rss"), Some(7));
        assert_eq!(figure("rss_huge 5\n", "rss"), None);
    }
}
