//! The groups of one sandbox: limits, membership, killing, removal.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use casemate_types::Resources;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, mkdirat, openat, unlinkat};
use serde::{Deserialize, Serialize};

use super::{Cgroups, Tree};
use crate::step::{Step, StepError};

/// Length of the window in which CPU time is counted: what every kernel starts a group with.
const CPU_PERIOD_US: u64 = 100_000;
/// CPU shares of one virtual processor against another sandbox's.
const CPU_WEIGHT_PER_VCPU: u64 = 100;

/// What the groups enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub cpu_quota_us: u64,
    /// In v2's scale, 1 to 10000.
    pub cpu_weight: u64,
    pub memory_bytes: u64,
    pub processes_max: u32,
}

/// What part of its memory limit a sandbox may have in socket buffers, on version 1.
const SOCKET_SHARE: u64 = 8;

impl Limits {
    pub fn of(resources: &Resources) -> Self {
        let vcpus = u64::from(resources.vcpus.max(1));
        Self {
            cpu_quota_us: vcpus * CPU_PERIOD_US,
            cpu_weight: (vcpus * CPU_WEIGHT_PER_VCPU).min(10_000),
            memory_bytes: u64::from(resources.memory_mib) << 20,
            processes_max: resources.processes_max,
        }
    }
}

/// A sandbox's groups in all hierarchies.
#[derive(Debug)]
pub struct SandboxCgroup {
    unified: Option<OwnedFd>,
    v1: Vec<OwnedFd>,
}

impl Cgroups {
    /// Makes groups for one sandbox, with limits, in all hierarchies. On an error
    /// [`Cgroups::delete`] removes what was made.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<(), StepError> {
        for tree in self.trees().filter(|tree| tree.per_sandbox) {
            mkdirat(&tree.instance, name, Mode::from_raw_mode(0o755))
                .step("make a control group")?;
        }
        self.limit(name, limits)
    }

    /// Changes the limits of a sandbox's groups.
    pub fn limit(&self, name: &str, limits: &Limits) -> Result<(), StepError> {
        for tree in self.trees().filter(|tree| tree.per_sandbox) {
            let group = open_dir(&tree.instance, name).step("open a control group")?;
            apply(tree, &group, limits).step("set a limit")?;
        }
        Ok(())
    }

    /// A sandbox's groups, open.
    pub fn group(&self, name: &str) -> io::Result<SandboxCgroup> {
        let open = |tree: &Tree| open_dir(&tree.instance, name);
        let own = self.v1.iter().filter(|tree| tree.per_sandbox);
        Ok(SandboxCgroup {
            unified: self.unified.as_ref().map(open).transpose()?,
            v1: own.map(open).collect::<Result<_, _>>()?,
        })
    }

    /// What identifies a sandbox's group over restarts: the kernel's number of it. `None` when
    /// there is no such group.
    pub fn id(&self, name: &str) -> io::Result<Option<u64>> {
        let Some(tree) = self.trees().find(|tree| tree.per_sandbox) else {
            return Ok(None);
        };
        match open_dir(&tree.instance, name) {
            Ok(group) => Ok(Some(fstat(&group)?.st_ino)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends SIGKILL to every process of a sandbox, and thaws what was frozen: nothing in it runs
    /// any more, and on version 1 nothing frozen dies. `Ok` also when the group is gone.
    pub fn kill(&self, name: &str) -> io::Result<()> {
        self.kill_all(name)?;
        self.thaw(name)
    }

    fn kill_all(&self, name: &str) -> io::Result<()> {
        if let Some(tree) = &self.unified {
            return match write_at(&tree.instance, &format!("{name}/cgroup.kill"), "1") {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
        }
        for pid in self.processes(name)? {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // Gone meanwhile is as good.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        Ok(())
    }

    /// The processes in a sandbox's groups; empty when they are gone.
    pub fn processes(&self, name: &str) -> io::Result<Vec<i32>> {
        let mut all = Vec::new();
        for tree in self.trees().filter(|tree| tree.per_sandbox) {
            match read_at(&tree.instance, &format!("{name}/cgroup.procs")) {
                Ok(list) => all.extend(list.lines().filter_map(|line| line.parse::<i32>().ok())),
                // While a group is being removed its files answer ENODEV.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Removes a sandbox's groups. `ResourceBusy` while a process is in them; idempotent.
    pub fn delete(&self, name: &str) -> io::Result<()> {
        let mut result = Ok(());
        for tree in self.trees().filter(|tree| tree.per_sandbox) {
            match unlinkat(&tree.instance, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                // The others are tried all the same; the last error tells.
                Err(error) => result = Err(error.into()),
            }
        }
        result
    }
}

impl SandboxCgroup {
    /// The v2 group, into which the first process is born.
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process, which has one thread, into the v1 groups.
    pub fn join_v1(&self) -> io::Result<()> {
        self.v1.iter().try_for_each(join)
    }
}

/// By thread and not by process: moving a whole process takes a lock of the kernel's that can cost
/// milliseconds, and the calling thread moving itself takes none.
pub(super) fn join(v1_group: &OwnedFd) -> io::Result<()> {
    write_at(v1_group, "tasks", "0")
}

fn apply(tree: &Tree, group: &OwnedFd, limits: &Limits) -> io::Result<()> {
    let write = |file: &str, value: u64| write_at(group, file, &value.to_string());
    let has = |controller| tree.hierarchy.has(controller);
    if tree.hierarchy.unified {
        if has("memory") {
            write("memory.max", limits.memory_bytes)?;
            optional(write("memory.swap.max", 0))?;
        }
        if has("cpu") {
            write_at(
                group,
                "cpu.max",
                &format!("{} {CPU_PERIOD_US}", limits.cpu_quota_us),
            )?;
            write("cpu.weight", limits.cpu_weight)?;
        }
        if has("pids") {
            write("pids.max", u64::from(limits.processes_max))?;
        }
        return Ok(());
    }
    if has("memory") {
        let memory = || write("memory.limit_in_bytes", limits.memory_bytes);
        // Only where the kernel counts swap.
        let with_swap = || optional(write("memory.memsw.limit_in_bytes", limits.memory_bytes));
        // The limit with swap is never below the other one, whichever way both change.
        if memory().is_ok() {
            with_swap()?;
        } else {
            with_swap()?;
            memory()?;
        }
        // Version 1 counts the buffers of sockets apart, and not at all without a limit.
        let socket_bytes = limits.memory_bytes / SOCKET_SHARE;
        optional(write("memory.kmem.tcp.limit_in_bytes", socket_bytes))?;
    }
    if has("cpu") {
        write("cpu.cfs_quota_us", limits.cpu_quota_us)?;
        // v1's scale has 1024 where v2's has 100.
        write("cpu.shares", (limits.cpu_weight * 1024 / 100).max(2))?;
    }
    if has("pids") {
        write("pids.max", u64::from(limits.processes_max))?;
    }
    Ok(())
}

fn optional(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A second fence behind "no device files in sandboxes": the usual harmless ones only.
pub(super) fn allow_common_devices(group: &OwnedFd) -> io::Result<()> {
    write_at(group, "devices.deny", "a")?;
    let memory = ["1:3", "1:5", "1:7", "1:8", "1:9"];
    let terminals = ["5:0", "5:2", "136:*"];
    for device in memory.iter().chain(&terminals) {
        write_at(group, "devices.allow", &format!("c {device} rw"))?;
    }
    Ok(())
}

/// Also while it is being removed.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn open_dir(at: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    openat(at, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(Into::into)
}

pub(super) fn read_at(at: &OwnedFd, file: &str) -> io::Result<String> {
    let mut text = String::new();
    let opened = openat(at, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    std::fs::File::from(opened).read_to_string(&mut text)?;
    Ok(text)
}

pub(super) fn write_at(at: &OwnedFd, file: &str, text: &str) -> io::Result<()> {
    let opened = openat(at, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    std::fs::File::from(opened).write_all(text.as_bytes())
}
