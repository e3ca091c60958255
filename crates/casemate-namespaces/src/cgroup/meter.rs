//! What a sandbox uses, as its groups count it: one reading for everybody who wants to know.
//!
//! The files stay open: asking again costs one call for each. A group that is being removed answers
//! with errors.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};

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
    /// Processes that the kernel ended because the memory was full.
    pub(crate) memory_kills: u64,
}

impl Memory {
    /// Content of files that the kernel takes back when it must.
    pub(crate) fn cache(&self) -> u64 {
        let cache = self.inactive_file.saturating_add(self.active_file);
        // They are read one after the other.
        cache.min(self.used)
    }
}

/// How much processor time a group and those below it have spent: the cheapest thing to ask.
#[derive(Debug)]
pub(crate) struct CpuClock {
    file: File,
    unified: bool,
}

/// More than the first lines that are looked at.
const CLOCK_BYTES: usize = 256;
/// More than the kernel writes into any of the files.
const FILE_BYTES: usize = 8192;

impl CpuClock {
    pub(crate) fn read(&self) -> io::Result<Duration> {
        let mut buffer = [0; CLOCK_BYTES];
        let text = read_again(&self.file, &mut buffer)?;
        let spent = match self.unified {
            true => figure(text, "usage_usec").map(Duration::from_micros),
            false => text.trim().parse().ok().map(Duration::from_nanos),
        };
        spent.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// All figures of one sandbox.
#[derive(Debug)]
pub(crate) struct Meter {
    clock: CpuClock,
    cpu: File,
    cpu_is_unified: bool,
    memory: File,
    memory_used: File,
    memory_is_unified: bool,
    memory_events: File,
    processes: Option<File>,
}

impl Meter {
    /// Processor time spent in all: where it stands still nothing was done.
    pub(crate) fn clock(&self) -> io::Result<Duration> {
        self.clock.read()
    }

    pub(crate) fn read(&self) -> io::Result<Usage> {
        let mut buffer = [0; FILE_BYTES];
        let cpu = read_again(&self.cpu, &mut buffer)?;
        let cpu = match self.cpu_is_unified {
            true => cpu_v2(cpu),
            false => cpu_v1(cpu),
        };
        let memory = read_again(&self.memory, &mut buffer)?;
        let memory = match self.memory_is_unified {
            true => memory_v2(memory),
            false => memory_v1(memory),
        };
        let used = number(read_again(&self.memory_used, &mut buffer)?);
        let memory_kills = memory_kills(&self.memory_events, &mut buffer)?;
        let processes = match &self.processes {
            Some(file) => number(read_again(file, &mut buffer)?),
            None => 0,
        };
        Ok(Usage {
            cpu,
            memory: Memory { used, ..memory },
            processes,
            memory_kills,
        })
    }
}

impl Cgroups {
    pub(crate) fn meter(&self, name: &str) -> io::Result<Meter> {
        let (cpu, memory) = (self.counts("cpuacct")?, self.counts("memory")?);
        let [stat, used] = match memory.hierarchy.unified {
            true => ["memory.stat", "memory.current"],
            false => ["memory.stat", "memory.usage_in_bytes"],
        };
        let cpu_stat = match cpu.hierarchy.unified {
            true => "cpu.stat",
            false => "cpuacct.stat",
        };
        let pids = self.with("pids");
        Ok(Meter {
            clock: clock(cpu, Some(name))?,
            cpu: open(cpu, Some(name), cpu_stat)?,
            cpu_is_unified: cpu.hierarchy.unified,
            memory: open(memory, Some(name), stat)?,
            memory_used: open(memory, Some(name), used)?,
            memory_is_unified: memory.hierarchy.unified,
            memory_events: open(memory, Some(name), memory_events(memory))?,
            processes: pids
                .map(|tree| open(tree, Some(name), "pids.current"))
                .transpose()?,
        })
    }

    /// [`Usage::memory_kills`] alone, of a group that nobody looked at yet or that is about to go.
    pub(crate) fn memory_kills(&self, name: &str) -> io::Result<u64> {
        let memory = self.counts("memory")?;
        let events = open(memory, Some(name), memory_events(memory))?;
        memory_kills(&events, &mut [0; FILE_BYTES])
    }

    /// Of all sandboxes together: where it stands still none did anything.
    pub(crate) fn clock_of_all(&self) -> io::Result<CpuClock> {
        clock(self.counts("cpuacct")?, None)
    }

    /// Where something is counted: by version 1 in a hierarchy of its own; version 2 counts
    /// processor time without any controller.
    fn counts(&self, v1: &str) -> io::Result<&Tree> {
        let own = self.v1.iter().find(|tree| tree.hierarchy.has(v1));
        let tree = own.or(self.unified.as_ref());
        tree.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

fn memory_events(memory: &Tree) -> &'static str {
    match memory.hierarchy.unified {
        true => "memory.events",
        false => "memory.oom_control",
    }
}

fn memory_kills(events: &File, buffer: &mut [u8]) -> io::Result<u64> {
    Ok(figure(read_again(events, buffer)?, "oom_kill").unwrap_or(0))
}

fn clock(tree: &Tree, group: Option<&str>) -> io::Result<CpuClock> {
    let unified = tree.hierarchy.unified;
    let name = if unified { "cpu.stat" } else { "cpuacct.usage" };
    let file = open(tree, group, name)?;
    Ok(CpuClock { file, unified })
}

/// A file of a sandbox's group, or of the instance's.
fn open(tree: &Tree, group: Option<&str>, file: &str) -> io::Result<File> {
    let path = match group {
        Some(group) => format!("{group}/{file}"),
        None => file.to_owned(),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(&tree.instance, path, flags, Mode::empty())?.into())
}

/// The kernel makes such a file's content anew for each reading from its start.
fn read_again<'a>(file: &File, buffer: &'a mut [u8]) -> io::Result<&'a str> {
    let length = file.read_at(buffer, 0)?;
    std::str::from_utf8(&buffer[..length]).map_err(|_| io::ErrorKind::InvalidData.into())
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
