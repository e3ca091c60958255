//! What a sandbox sees of its machine: ordinary files that lie over the kernel's.
//!
//! `/proc/meminfo`, `stat`, `loadavg` and the boot's id are a sandbox's own, in a folder per slot
//! that is made with the slot; `cpuinfo` and `/sys` belong to a [`shape`] that all sandboxes with
//! the same processors share. All lie in one file system in memory below `/run`. A launcher binds
//! them, read-only; the node rewrites them in place, so that a sandbox whose node is down reads old
//! figures and never an error.
//!
//! Must not know control groups' files, launchers, or when it is time to rewrite.

mod shape;
mod text;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use casemate_linux::mount::clone_mount;
use casemate_net::SlotLink;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::cgroup::{CpuTime, Usage};
use crate::step::{Step, StepError};

/// Files of a slot's folder.
pub(crate) const MEMINFO: &str = "meminfo";
pub(crate) const STAT: &str = "stat";
pub(crate) const LOADAVG: &str = "loadavg";
pub(crate) const BOOT_ID: &str = "boot_id";
/// For the agent alone.
pub(crate) const DISK: &str = "disk";
/// A named pipe: the log, from the agent to the node, which finds it again by this name.
const LOG: &str = "log";
/// Parts of a shape's folder.
pub(crate) const CPUINFO: &str = "cpuinfo";
pub(crate) const SYS: &str = "sys";

/// Begins the names of shapes; another form of them begins otherwise.
const SHAPE_PREFIX: &str = "cpu1-";
/// Bounds what all views take: about 20 KiB for a slot, 200 KiB for a shape.
const BYTES_MAX: &std::ffi::CStr = c"mode=0755,size=128m,nr_inodes=100k";
/// `statfs` type of the file system.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The machine of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The host's numbers of its processors.
    pub(crate) processors: Vec<u32>,
    pub(crate) memory_bytes: u64,
    /// What it may write, where something holds it to that.
    pub(crate) disk_bytes: Option<u64>,
    /// Its birth on the host's clock of seconds since boot.
    pub(crate) born_s: u64,
    /// The same as a date.
    pub(crate) born_unix: u64,
}

impl Machine {
    /// One that is born now.
    pub(crate) fn new(processors: Vec<u32>, memory_bytes: u64, disk_bytes: Option<u64>) -> Self {
        Self {
            processors,
            memory_bytes,
            disk_bytes,
            born_s: since_boot().as_secs(),
            born_unix: unix_now(),
        }
    }
}

/// All views of an instance.
#[derive(Debug)]
pub(crate) struct Views {
    root: PathBuf,
    /// The same file system, mounted nowhere: what is opened through it has a name that says
    /// nothing of the host.
    nowhere: OwnedFd,
    host: shape::Host,
    /// Shapes that are there.
    shapes: Mutex<BTreeSet<String>>,
}

impl Views {
    /// Mounts the file system; what is mounted already, with what is in it, is taken over.
    /// `groups` are folders of control group hierarchies, with other names for each.
    pub(crate) fn open(
        root: PathBuf,
        link: SlotLink,
        groups: Vec<(String, Vec<String>)>,
    ) -> Result<Self, StepError> {
        std::fs::create_dir_all(&root).step("make the views' mount point")?;
        if !is_mounted(&root).step("look at the views' mount point")? {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            rustix::mount::mount("views", &root, "tmpfs", flags, BYTES_MAX)
                .step("mount the views")?;
        }
        let host = shape::Host::read(link, groups).step("read about the host's processors")?;
        let nowhere = clone_mount(CWD, &root).step("copy the views' mount")?;
        Ok(Self {
            root,
            nowhere,
            host,
            shapes: Mutex::default(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of what sandboxes with these processors share; made when there is none.
    pub(crate) fn shape(&self, processors: &[u32]) -> io::Result<String> {
        let name = format!("{SHAPE_PREFIX}{}", shape::list(processors));
        // Held meanwhile: two must not make the same one.
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        if !shapes.contains(&name) {
            let (place, half) = (self.root.join(&name), self.root.join("half"));
            if !place.exists() {
                gone(std::fs::remove_dir_all(&half))?;
                std::fs::create_dir(&half)?;
                self.host.furnish(&half, processors)?;
                std::fs::rename(&half, &place)?;
            }
            shapes.insert(name.clone());
        }
        Ok(name)
    }

    /// Makes the files of a slot, for a machine that nobody uses yet. What is left there of an
    /// earlier use goes.
    pub(crate) fn make(&self, slot: u16, machine: &Machine) -> io::Result<()> {
        self.remove(slot)?;
        let folder = self.folder(slot);
        std::fs::create_dir(&folder)?;
        let boot_id = std::fs::read("/proc/sys/kernel/random/uuid")?;
        std::fs::write(folder.join(BOOT_ID), boot_id)?;
        mknodat(
            CWD,
            folder.join(LOG),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )?;
        self.begin(slot, machine)?;
        std::fs::write(folder.join(DISK), text::disk(machine.disk_bytes, 0))?;
        let load = text::loadavg(&text::Load::default(), 1);
        std::fs::write(folder.join(LOADAVG), load)?;
        let memory = text::meminfo(machine.memory_bytes, &Default::default());
        std::fs::write(folder.join(MEMINFO), memory)
    }

    /// Fits a slot's files to the machine that begins now, in place of the one it was made for.
    pub(crate) fn fit(&self, slot: u16, made: &Machine, machine: &Machine) -> io::Result<()> {
        if made.memory_bytes != machine.memory_bytes {
            let memory = text::meminfo(machine.memory_bytes, &Default::default());
            std::fs::write(self.folder(slot).join(MEMINFO), memory)?;
        }
        if made.disk_bytes != machine.disk_bytes {
            let disk = text::disk(machine.disk_bytes, 0);
            std::fs::write(self.folder(slot).join(DISK), disk)?;
        }
        self.begin(slot, machine)
    }

    /// The near end of a slot's log. A description of its own: whoever has the far end can make
    /// that wait, and not this.
    pub(crate) fn log(&self, slot: u16) -> io::Result<OwnedFd> {
        self.open_log(slot, OFlags::RDONLY)
    }

    /// The far end. It reads as well, so that what is in it stays while nobody has the near one.
    pub(crate) fn log_far(&self, slot: u16) -> io::Result<OwnedFd> {
        self.open_log(slot, OFlags::RDWR)
    }

    fn open_log(&self, slot: u16, access: OFlags) -> io::Result<OwnedFd> {
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let path = format!("{slot}/{LOG}");
        Ok(openat(&self.nowhere, path, flags, Mode::empty())?)
    }

    fn begin(&self, slot: u16, machine: &Machine) -> io::Result<()> {
        let nothing = CpuTime::default();
        let stat = text::stat(
            &machine.processors,
            machine.born_unix,
            &nothing,
            Duration::ZERO,
            1,
        );
        std::fs::write(self.folder(slot).join(STAT), stat)
    }

    /// Rewrites a slot's files in place.
    fn rewrite(&self, slot: u16, file: &str, text: &str) -> io::Result<()> {
        let file = File::options()
            .write(true)
            .open(self.folder(slot).join(file))?;
        file.write_all_at(text.as_bytes(), 0)
    }

    /// Removes a slot's files; a sandbox that has them mounted keeps them.
    pub(crate) fn remove(&self, slot: u16) -> io::Result<()> {
        gone(std::fs::remove_dir_all(self.folder(slot)))
    }

    /// Slots that have files.
    pub(crate) fn slots(&self) -> io::Result<Vec<u16>> {
        let mut slots = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            slots.extend(name.to_str().and_then(|name| name.parse::<u16>().ok()));
        }
        Ok(slots)
    }

    /// Takes the file system away; no sandbox may be left.
    pub(crate) fn close(&self) -> Result<(), StepError> {
        if is_mounted(&self.root).step("look at the views' mount point")? {
            rustix::mount::unmount(&self.root, UnmountFlags::DETACH).step("unmount the views")?;
        }
        gone(std::fs::remove_dir(&self.root)).step("remove the views' mount point")
    }

    fn folder(&self, slot: u16) -> PathBuf {
        self.root.join(slot.to_string())
    }
}

/// The figures of one sandbox from one rewriting to the next.
#[derive(Debug)]
pub(crate) struct Figures {
    machine: Machine,
    usage: Usage,
    spent: Duration,
    idle: Duration,
    at: Duration,
    load: text::Load,
}

impl Figures {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            usage: Usage::default(),
            spent: Duration::ZERO,
            idle: Duration::ZERO,
            at: Duration::from_secs(machine.born_s),
            load: text::Load::default(),
            machine,
        }
    }

    /// Counts the load from now on: what was spent before is known as a sum only.
    pub(crate) fn resume(&mut self, usage: &Usage) {
        self.spent = usage.cpu.user + usage.cpu.system;
        self.at = since_boot();
    }

    /// Whether something holds the sandbox to a disk limit, so that its use is worth asking for.
    pub(crate) fn has_disk(&self) -> bool {
        self.machine.disk_bytes.is_some()
    }

    /// Rewrites all files of a slot.
    pub(crate) fn show(
        &mut self,
        views: &Views,
        slot: u16,
        usage: &Usage,
        disk_used: Option<u64>,
    ) -> io::Result<()> {
        self.usage = *usage;
        let memory = text::meminfo(self.machine.memory_bytes, &usage.memory);
        views.rewrite(slot, MEMINFO, &memory)?;
        if let Some(used) = disk_used {
            views.rewrite(slot, DISK, &text::disk(self.machine.disk_bytes, used))?;
        }
        self.age(views, slot)
    }

    /// Rewrites what changes without any work: the idle time grows, and the load sinks.
    pub(crate) fn age(&mut self, views: &Views, slot: u16) -> io::Result<()> {
        let now = since_boot();
        let cpu = &self.usage.cpu;
        let spent = cpu.user + cpu.system;
        self.load.add(
            spent.saturating_sub(self.spent),
            now.saturating_sub(self.at),
        );
        let up = now.saturating_sub(Duration::from_secs(self.machine.born_s));
        let processors = u32::try_from(self.machine.processors.len()).unwrap_or(u32::MAX);
        // Never less than before: programs subtract.
        self.idle = self.idle.max((up * processors).saturating_sub(spent));
        (self.spent, self.at) = (spent, now);
        let processes = self.usage.processes.max(1);
        let stat = text::stat(
            &self.machine.processors,
            self.machine.born_unix,
            cpu,
            self.idle,
            processes,
        );
        views.rewrite(slot, STAT, &stat)?;
        views.rewrite(slot, LOADAVG, &text::loadavg(&self.load, processes))
    }
}

/// The host's time since its boot.
pub(crate) fn since_boot() -> Duration {
    of_clock(ClockId::Boottime)
}

/// This moment as Unix time.
fn unix_now() -> u64 {
    of_clock(ClockId::Realtime).as_secs()
}

fn of_clock(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Duration::from_secs(part(now.tv_sec)) + Duration::from_nanos(part(now.tv_nsec))
}

fn is_mounted(root: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let folder = File::open(root)?;
    let kind = rustix::fs::fstatfs(folder.as_fd())?.f_type;
    let above = root.parent().map(std::fs::metadata).transpose()?;
    let is_other = above.is_none_or(|above| {
        let own = folder.metadata().map(|found| found.dev()).ok();
        own != Some(above.dev())
    });
    Ok(u64::try_from(kind).is_ok_and(|kind| kind == TMPFS_MAGIC) && is_other)
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
