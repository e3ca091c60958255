//! What the platform and its sandboxes take while nothing happens.

use std::fs;
use std::time::Duration;

use super::Bench;
use crate::bench::error::BenchError;
use crate::bench::machine::meminfo;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

/// Memory counts as settled when two looks, this far apart, differ by less than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SETTLED_KIB: u64 = 1024;

/// How long settling is waited for. Other work on the machine may never let it settle.
const LOOKS_MAX: usize = 20;

impl Bench<'_> {
    /// The platform's own processes: each one's share of what it has in memory.
    pub(in crate::bench) fn idle_platform(&mut self) -> Result<(), BenchError> {
        if self.options.platform.is_empty() {
            self.notes
                .push("memory was not measured: the platform is not on this machine".into());
            return Ok(());
        }
        let pids = family(&self.options.platform)?;
        let mut total_kib = 0;
        for pid in &pids {
            total_kib += pss_kib(*pid)?;
        }
        let mut total = Samples::default();
        total.push(mib(total_kib));
        let name = format!("idle platform, PSS of its {} processes", pids.len());
        self.figures
            .push(Figure::memory(&name, &total).at_most(64.0));
        Ok(())
    }

    /// What memory there is less for each sandbox that does nothing, slots and layers included.
    pub(in crate::bench) async fn idle_sandboxes(&mut self) -> Result<(), BenchError> {
        let count = self.options.idle;
        if self.options.platform.is_empty() || count == 0 {
            return Ok(());
        }
        let before = settled().await?;
        let ids = self.create_many(count).await?;
        let after = settled().await;
        self.kill(&ids).await?;
        #[expect(clippy::cast_precision_loss, reason = "a count of sandboxes is small")]
        let each = mib(before.saturating_sub(after?)) / count as f64;
        let mut memory = Samples::default();
        memory.push(each);
        let name = format!("memory of an idle sandbox, Δ available / {count}");
        self.figures
            .push(Figure::memory(&name, &memory).at_most(2.0));
        Ok(())
    }
}

/// Available memory in KiB, once it no longer moves.
async fn settled() -> Result<u64, BenchError> {
    let mut last = available_kib()?;
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = available_kib()?;
        if now.abs_diff(last) < SETTLED_KIB {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

fn available_kib() -> Result<u64, BenchError> {
    let text = read("/proc/meminfo", "read the machine's memory")?;
    let missing = || std::io::Error::other("no MemAvailable");
    meminfo(&text, "MemAvailable:").ok_or_else(|| BenchError::Io {
        action: "read the machine's memory",
        source: missing(),
    })
}

fn pss_kib(pid: u32) -> Result<u64, BenchError> {
    let text = read(
        &format!("/proc/{pid}/smaps_rollup"),
        "read the platform's memory",
    )?;
    Ok(meminfo(&text, "Pss:").unwrap_or(0))
}

/// The platform's processes, first `up`; whoever it started, and those below them that run the same
/// program as their parent: what is inside sandboxes runs another one.
pub(super) fn family(roots: &[u32]) -> Result<Vec<u32>, BenchError> {
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let listed = fs::read_dir("/proc").map_err(|source| BenchError::Io {
        action: "list processes",
        source,
    })?;
    let pids = listed
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A process that is gone by now has no parent and is nobody's.
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family: Vec<u32> = roots.to_vec();
    let mut next = 0;
    while let Some(&head) = family.get(next) {
        let runs = program(head);
        let children = parents.iter().filter(|(_, parent)| *parent == head);
        for (child, _) in children {
            let is_ours = next == 0 || program(*child) == runs;
            if is_ours && !family.contains(child) {
                family.push(*child);
            }
        }
        next += 1;
    }
    Ok(family)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses: what counts follows the last one.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn read(path: &str, action: &'static str) -> Result<String, BenchError> {
    fs::read_to_string(path).map_err(|source| BenchError::Io { action, source })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "memory of a machine has fewer bits than a float"
)]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_was_started_and_what_runs_the_same_program_below_are_one_family() {
        let me = std::process::id();
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "(cat; :); :"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // An echo says that the shell has started its second self, and that one another program.
        let (mut input, mut echo) = (shell.stdin.take().unwrap(), [0]);
        input.write_all(b"x").unwrap();
        shell
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut echo)
            .unwrap();
        let family = family(&[me]).unwrap();
        drop(input);
        shell.wait().unwrap();
        assert_eq!(family.len(), 3, "{family:?}");
        assert_eq!(family[..2], [me, shell.id()]);
        assert!(parent(me).is_some());
        assert!(pss_kib(me).unwrap() > 0);
    }
}
