//! Tables of the kernel that have one size for the host: what all sandboxes together could fill.

use std::fs;

use super::Finding;
use crate::config::Config;

/// What one open file costs a sandbox of its memory, at least.
const FILE_BYTES: u64 = 512;
/// Terminals of one sandbox at most (`max=` of its `/dev/pts`).
const TERMINALS: u64 = 64;

pub(super) fn look(config: &Config) -> Vec<Finding> {
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
        text.trim().parse().ok()
    };
    let sandboxes = u64::from(config.limits.sandboxes_max);
    let each = u64::from(config.conntrack_per_sandbox_max);
    let memory = fs::read_to_string("/proc/meminfo").ok();
    let memory = memory.as_deref().and_then(memory_bytes);
    let terminals = number("kernel/pty/max").zip(number("kernel/pty/reserve"));
    [
        number("fs/file-max")
            .zip(memory)
            .map(|(max, memory)| open_files(max, memory)),
        terminals.map(|(max, reserve)| terminals_of_all(max, reserve, sandboxes)),
        // It is not there before something tracks connections.
        number("net/netfilter/nf_conntrack_max").map(|max| connections(max, each, sandboxes)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Files cost memory, so that with this many the memory of all sandboxes ends first.
fn open_files(max: u64, memory_bytes: u64) -> Finding {
    let enough = memory_bytes / FILE_BYTES;
    let found = format!("{max} for the whole host");
    match max >= enough {
        true => Finding::good("open files", found),
        false => Finding::warning(
            "open files",
            format!("{found}: sandboxes can take them all"),
            format!("Run: sysctl -w fs.file-max={enough}"),
        ),
    }
}

fn terminals_of_all(max: u64, reserve: u64, sandboxes: u64) -> Finding {
    let (all, wanted) = (max.saturating_sub(reserve), sandboxes * TERMINALS);
    let found = format!("{all} for all sandboxes");
    match all >= wanted {
        true => Finding::good("terminals", found),
        false => Finding::warning(
            "terminals",
            format!("{found}, enough for {} that use theirs", all / TERMINALS),
            format!("Run: sysctl -w kernel.pty.max={}", wanted + reserve),
        ),
    }
}

fn connections(max: u64, each: u64, sandboxes: u64) -> Finding {
    let wanted = sandboxes * each;
    let found = format!("{max} are tracked");
    match max >= wanted {
        true => Finding::good("connections", found),
        false => Finding::warning(
            "connections",
            format!(
                "{found}, enough for {} sandboxes that use theirs ({each} each), and with none left \
                 the host makes none either",
                max / each.max(1)
            ),
            format!(
                "Run: sysctl -w net.netfilter.nf_conntrack_max={wanted}, or set \
                 network.conntrack_per_sandbox_max to {} or below",
                max / sandboxes.max(1)
            ),
        ),
    }
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[track_caller]
    fn check(finding: &Finding, mend: Option<&str>) {
        let words = finding.words();
        match (mend, &finding.state) {
            (Some(mend), super::super::State::Warning { .. }) => {
                assert!(words.contains(mend), "{words}");
            }
            (None, super::super::State::Good { .. }) => {}
            _ => panic!("{finding:?}"),
        }
    }

    #[test]
    fn a_table_that_sandboxes_can_fill_is_told_with_what_would_be_enough() {
        check(&open_files(32 << 20, 16 * GIB), None);
        check(
            &open_files(1_600_000, 16 * GIB),
            Some("fs.file-max=33554432"),
        );
        check(&terminals_of_all(4096, 1024, 48), None);
        check(
            &terminals_of_all(4096, 1024, 1000),
            Some("enough for 48 that use theirs. Run: sysctl -w kernel.pty.max=65024"),
        );
        check(&connections(262_144, 4096, 64), None);
        let many = connections(262_144, 4096, 1000);
        check(&many, Some("nf_conntrack_max=4096000"));
        check(
            &many,
            Some("network.conntrack_per_sandbox_max to 262 or below"),
        );
        check(&connections(262_144, 262, 1000), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(
            memory_bytes("MemTotal:       24683656 kB\n"),
            Some(24_683_656 << 10)
        );
        assert_eq!(memory_bytes("MemFree: 1 kB\n"), None);
    }
}
