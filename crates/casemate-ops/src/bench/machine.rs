//! What a figure was measured on.

use std::fs;

use serde::Serialize;

/// One machine, in words.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub system: String,
    pub kernel: String,
    pub processor: String,
    pub cores: usize,
    pub memory_mib: u64,
}

impl Machine {
    /// What cannot be read is said to be unknown: it keeps no figure from being shown.
    pub(super) fn read() -> Self {
        let unknown = || "unknown".to_owned();
        let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let system = field(&os, "PRETTY_NAME=", |line| {
            line.trim_matches('"').to_owned()
        });
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = |line: &str| line.trim_start_matches([' ', '\t', ':']).to_owned();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            system: system.unwrap_or_else(unknown),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            processor: field(&cpu, "model name", model).unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: meminfo(&memory, "MemTotal:").unwrap_or(0) >> 10,
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            system,
            kernel,
            processor,
            cores,
            memory_mib,
        } = self;
        write!(
            f,
            "{system}, Linux {kernel}, {cores} × {processor}, {memory_mib} MiB"
        )
    }
}

/// A value of `/proc/meminfo`, in KiB.
pub(super) fn meminfo(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.split_whitespace().next()?.parse().ok();
    field(text, name, value).flatten()
}

fn field<T>(text: &str, name: &str, read: impl Fn(&str) -> T) -> Option<T> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kib() {
        let text = "MemTotal:       24576000 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(meminfo(text, "MemAvailable:"), Some(1024));
        assert_eq!(meminfo(text, "SwapFree:"), None);
    }
}
