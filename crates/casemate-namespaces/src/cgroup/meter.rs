//! What the groups of a sandbox have counted.

use std::io;
use std::time::Duration;

use super::Cgroups;
use super::sandbox::read_at;

/// Memory of one sandbox, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Without the cache.
    pub used: u64,
    /// Of files, which the kernel takes back when it must.
    pub cache: u64,
}

impl Cgroups {
    /// Processor time of all processes that were ever in the group: a group is one sandbox's.
    pub fn cpu_time(&self, name: &str) -> io::Result<Duration> {
        // Version 1 counts in a hierarchy of its own; version 2 counts in every group, also where
        // it limits nothing.
        if let Some(tree) = self.v1.iter().find(|tree| tree.hierarchy.has("cpuacct")) {
            let text = read_at(&tree.instance, &format!("{name}/cpuacct.usage"))?;
            return Ok(Duration::from_nanos(number(&text)?));
        }
        let tree = self.unified.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let text = read_at(&tree.instance, &format!("{name}/cpu.stat"))?;
        Ok(Duration::from_micros(value(&text, "usage_usec")?))
    }

    pub fn memory(&self, name: &str) -> io::Result<MemoryUse> {
        let tree = self.with("memory").ok_or(io::ErrorKind::Unsupported)?;
        let (total, keys) = if tree.hierarchy.unified {
            ("memory.current", ["inactive_file", "active_file"])
        } else {
            (
                "memory.usage_in_bytes",
                ["total_inactive_file", "total_active_file"],
            )
        };
        let total = number(&read_at(&tree.instance, &format!("{name}/{total}"))?)?;
        let stat = read_at(&tree.instance, &format!("{name}/memory.stat"))?;
        let mut cache = 0_u64;
        for key in keys {
            cache = cache.saturating_add(value(&stat, key)?);
        }
        // They are read one after the other.
        let cache = cache.min(total);
        Ok(MemoryUse {
            used: total - cache,
            cache,
        })
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.trim()
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Of a line `key value`.
fn value(text: &str, key: &str) -> io::Result<u64> {
    let of = |line: &'_ str| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| number(value))
    };
    text.lines()
        .find_map(of)
        .unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::InvalidData)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_whole_and_a_missing_one_is_an_error() {
        let text = "usage_usec_more 1\nusage_usec 42\nuser_usec 7\n";
        assert_eq!(value(text, "usage_usec").unwrap(), 42);
        assert!(value(text, "usage").is_err());
        assert!(value("usage_usec x\n", "usage_usec").is_err());
    }
}
