//! What the machine is and how busy its processors are: for administrators, never for admission.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use casemate_rpc::{NodeDisk, NodeProcessor};

/// Percentages are of at least this long, unless nothing was asked before.
const SPAN_MIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Hardware {
    pub(crate) processor: NodeProcessor,
    busy: Mutex<Option<Busy>>,
}

/// A reading of the machine's processor time, and the percentage up to it.
#[derive(Debug, Clone, Copy)]
struct Busy {
    at: Instant,
    ticks: Ticks,
    percent: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl Hardware {
    pub(crate) fn look() -> Self {
        // What cannot be read stays empty.
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let hardware = Self {
            processor: processor(&text),
            busy: Mutex::default(),
        };
        hardware.cpu_percent();
        hardware
    }

    /// Of all processors together, since it was asked last.
    pub(crate) fn cpu_percent(&self) -> u32 {
        let mut last = self.busy.lock().expect("no holder of this lock panics");
        if let Some(busy) = *last
            && busy.at.elapsed() < SPAN_MIN
        {
            return busy.percent;
        }
        let ticks = ticks(&std::fs::read_to_string("/proc/stat").unwrap_or_default());
        let percent = last.map_or(0, |before| percent(before.ticks, ticks));
        *last = Some(Busy {
            at: Instant::now(),
            ticks,
            percent,
        });
        percent
    }
}

fn percent(before: Ticks, now: Ticks) -> u32 {
    let all = now.all.saturating_sub(before.all).max(1);
    let busy = now.busy.saturating_sub(before.busy).min(all);
    u32::try_from(busy * 100 / all).unwrap_or(100)
}

/// The first line of `/proc/stat` (`proc_stat(5)`): user, nice, system, idle, iowait, irq, softirq,
/// steal; guests' time is in user's already.
fn ticks(stat: &str) -> Ticks {
    let numbers = stat.lines().next().unwrap_or_default();
    let numbers = numbers.split_whitespace().skip(1).take(8);
    let mut counted = Ticks::default();
    for (place, number) in numbers.enumerate() {
        let number = number.parse::<u64>().unwrap_or(0);
        counted.all = counted.all.saturating_add(number);
        if !matches!(place, 3 | 4) {
            counted.busy = counted.busy.saturating_add(number);
        }
    }
    counted
}

fn processor(cpuinfo: &str) -> NodeProcessor {
    let field = |name: &str| {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let mut named = lines.filter(|(key, _)| key.trim() == name);
        named
            .next()
            .map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    NodeProcessor {
        family: field("cpu family"),
        model: field("model"),
        name: field("model name"),
        architecture: std::env::consts::ARCH.to_owned(),
    }
}

/// The file system of a folder; `None` where the table of mounts does not say.
pub(crate) fn disk(dir: &Path) -> Option<NodeDisk> {
    let size = rustix::fs::statvfs(dir).ok()?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (mount_point, device, file_system) = mount_of(&table, &dir.canonicalize().ok()?)?;
    let bytes = |blocks: u64| blocks.saturating_mul(size.f_frsize);
    Some(NodeDisk {
        mount_point,
        device,
        file_system,
        used_bytes: bytes(size.f_blocks.saturating_sub(size.f_bfree)),
        total_bytes: bytes(size.f_blocks),
    })
}

/// The mount on which a path lies: of those above it the deepest, and of several there the last.
fn mount_of(table: &str, path: &Path) -> Option<(String, String, String)> {
    let mounts = table.lines().filter_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        let mount_point = place.split(' ').nth(4)?;
        let mut what = what.split(' ');
        let (file_system, device) = (what.next()?, what.next()?);
        path.starts_with(mount_point).then(|| {
            (
                mount_point.to_owned(),
                device.to_owned(),
                file_system.to_owned(),
            )
        })
    });
    mounts.max_by_key(|(mount_point, ..)| Path::new(mount_point).components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_what_the_kernel_says() {
        let before = ticks("cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 2 3\n");
        assert_eq!((before.busy, before.all), (150, 1000));
        let now = ticks("cpu  150 0 75 850 75 0 0 0 9 0\n");
        assert_eq!(percent(before, now), 50);
        // A counter that fell, as some do.
        assert_eq!(percent(now, before), 0);
        let read =
            processor("processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: A: B\n");
        assert_eq!(
            (
                read.family.as_str(),
                read.model.as_str(),
                read.name.as_str()
            ),
            ("25", "1", "A: B")
        );
        let table =
            "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 8:2 / /data rw shared:1 - xfs /dev/vdb rw\n";
        let of = |path: &str| mount_of(table, Path::new(path)).unwrap().1;
        assert_eq!(
            (of("/data/x").as_str(), of("/database").as_str()),
            ("/dev/vdb", "/dev/vda")
        );
        assert!(disk(Path::new("/")).is_some_and(|disk| disk.total_bytes > 0));
    }
}
