//! What a sandbox sees in `/proc` and `/sys` of the machine that it runs on: its own, or nothing.
//!
//! Files that change are the node's (`crate::view`), in folders that the room shows as `/v`. What is
//! the same for all sandboxes lies in the room, and each sees it through inodes of its own (`own`):
//! empty files and folders over what only the host is told about, and copies without figures of what
//! programs want to find. Every mount costs each sandbox about 12 µs, so what this kernel does not
//! have is left out beforehand, and what tells of the hardware only stays visible
//! (`docs/security.md`).
//!
//! Everything here is read-only twice: its owner is the host's root, whom no sandbox knows, and so
//! is the mount. A sandbox cannot take a mount away, for it may not unmount.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use casemate_linux::mount::{Attributes, clone_mount, set_attributes};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountFlags, mount, mount_bind};

use super::message::Order;
use super::own::{FIGURES, PLACE, SHARED, VIEWS};
use super::room::attach;
use crate::cgroup::Cgroups;
use crate::step::{Step, StepError};
use crate::view;

/// Files about the host's disks and its start, and about the work of all its programs together.
const EMPTY_FILES: [&str; 7] = [
    "cmdline",
    "config.gz",
    "diskstats",
    "interrupts",
    "partitions",
    "softirqs",
    "zoneinfo",
];
/// How long all programs of the host wait; where the kernel counts it.
const PRESSURE: &str = "pressure";
/// File systems of the host from within: names, options, free blocks, what is looked up how often.
const FILE_SYSTEMS: &str = "fs";
/// How many terminals all sandboxes and the host have open.
const TERMINALS: &str = "sys/kernel/pty/nr";

/// Below [`SHARED`] and [`PLACE`].
const MASKS: &str = "mask";
const NO_FILE: &str = "mask/file";
const NO_FOLDER: &str = "mask/folder";
const GROUPS: &str = "/g";

/// Attributes of everything of ours that a sandbox gets to see.
const PROTECTED: Attributes<'static> = Attributes {
    read_only: true,
    no_suid: true,
    no_devices: true,
    no_exec: true,
    // On most hosts every mount is shared, and copies would be, too.
    private: true,
    idmap: None,
};

/// The same for all sandboxes.
#[derive(Debug)]
pub(super) struct Machine {
    /// Files and folders of its own view, and the entries of `/proc` that they lie over.
    masks: Vec<(String, String)>,
    /// Whether the v2 tree has the limits.
    unified: bool,
    /// Names of v1 hierarchies, and whether a sandbox has a group of its own there.
    groups: Vec<(String, bool)>,
}

/// What one sandbox is shown of the room, taken from it before its worker leaves.
#[derive(Debug)]
pub(super) struct Taken {
    figures: OwnedFd,
    /// For the agent: what the sandbox's disk has and holds.
    pub(super) disk: OwnedFd,
    groups: Vec<OwnedFd>,
}

/// What is taken from the host before the room hides it.
#[derive(Debug)]
pub(super) struct Gathered {
    machine: Machine,
    /// Content of masks that have some, by name.
    texts: Vec<(&'static str, String)>,
    groups: Vec<OwnedFd>,
    views: OwnedFd,
}

impl Gathered {
    /// Call it in the host's mount namespace.
    pub(super) fn new(cgroups: &Cgroups, views: &Path) -> Result<Self, StepError> {
        let proc = Path::new("/proc");
        let over = |name: &str| format!("proc/{name}");
        let files = EMPTY_FILES.iter().filter(|name| proc.join(name).exists());
        let mut masks: Vec<_> = files.map(|name| (NO_FILE.to_owned(), over(name))).collect();
        if std::fs::read(proc.join(PRESSURE).join("cpu")).is_ok() {
            masks.push((NO_FOLDER.to_owned(), over(PRESSURE)));
        }
        masks.push((NO_FOLDER.to_owned(), over(FILE_SYSTEMS)));
        let mut texts: Vec<_> = [
            ("cgroups", controllers as fn(&str) -> Option<String>),
            ("swaps", no_swaps),
            ("vmstat", zeros),
        ]
        .into_iter()
        .filter_map(|(name, without_figures)| {
            let host = std::fs::read_to_string(proc.join(name)).ok()?;
            Some((name, without_figures(&host)?))
        })
        .collect();
        for (name, _) in &texts {
            masks.push((format!("{MASKS}/{name}"), over(name)));
        }
        if proc.join(TERMINALS).exists() {
            texts.push(("terminals", "0\n".to_owned()));
            masks.push((format!("{MASKS}/terminals"), over(TERMINALS)));
        }
        let unified = cgroups.limits_are_unified();
        let mut groups = Vec::new();
        let mut mounts = Vec::new();
        for shown in cgroups.shown().filter(|_| !unified) {
            let group = clone_mount(shown.instance, ".").step("copy a control group's mount")?;
            set_attributes(&group, PROTECTED).step("protect a control group's mount")?;
            groups.push((shown.name(), shown.per_sandbox));
            mounts.push(group);
        }
        let views = clone_mount(CWD, views).step("copy the views' mount")?;
        set_attributes(&views, PROTECTED).step("protect the views")?;
        Ok(Self {
            machine: Machine {
                masks,
                unified,
                groups,
            },
            texts,
            groups: mounts,
            views,
        })
    }

    /// Puts everything into the room, whose root is still writable.
    pub(super) fn furnish(self) -> Result<Machine, StepError> {
        let masks = || -> io::Result<()> {
            let shared = Path::new(SHARED);
            std::fs::create_dir_all(shared.join(NO_FOLDER))?;
            std::fs::create_dir(shared.join(FIGURES))?;
            std::fs::write(shared.join(NO_FILE), "")?;
            for (name, text) in &self.texts {
                std::fs::write(shared.join(MASKS).join(name), text)?;
            }
            Ok(())
        };
        masks().step("furnish the room with masks")?;
        let place = |mount: &OwnedFd, place: PathBuf| -> io::Result<()> {
            std::fs::create_dir_all(&place)?;
            attach(mount, &place)
        };
        place(&self.views, VIEWS.into()).step("attach the views")?;
        for ((name, _), group) in self.machine.groups.iter().zip(&self.groups) {
            place(group, Path::new(GROUPS).join(name)).step("attach a control group")?;
        }
        Ok(self.machine)
    }
}

impl Machine {
    /// What every sandbox is shown of its own view.
    pub(super) fn places(&self) -> impl Iterator<Item = &str> {
        let masks = self.masks.iter().map(|(from, _)| from.as_str());
        std::iter::once("dev").chain(masks)
    }

    /// In the room.
    pub(super) fn take(&self, order: &Order) -> io::Result<Taken> {
        let figures = clone_mount(CWD, format!("{VIEWS}/{}", order.slot))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let disk = openat(&figures, view::DISK, flags, Mode::empty())?;
        let group = |(name, per_sandbox): &(String, bool)| match per_sandbox {
            true => clone_mount(CWD, format!("{GROUPS}/{name}/{}", order.group)),
            false => clone_mount(CWD, format!("{GROUPS}/{name}")),
        };
        Ok(Taken {
            figures,
            disk,
            groups: self.groups.iter().map(group).collect::<io::Result<_>>()?,
        })
    }

    /// Lays everything over the `/proc` below the working folder, and makes the `/sys` there. The
    /// sandbox's view is attached at [`PLACE`].
    pub(super) fn show(&self, order: &Order, taken: &Taken) -> Result<(), StepError> {
        let figures = format!("{PLACE}/{FIGURES}");
        attach(&taken.figures, Path::new(&figures)).step("attach a sandbox's figures")?;
        let own = |file: &str| format!("{figures}/{file}");
        for (from, to) in [
            (view::MEMINFO, "proc/meminfo"),
            (view::STAT, "proc/stat"),
            (view::LOADAVG, "proc/loadavg"),
            (view::BOOT_ID, "proc/sys/kernel/random/boot_id"),
        ] {
            mount_bind(own(from), to).step("show a sandbox its figures")?;
        }
        let alike = |part: &str| format!("{PLACE}/{}/{part}", order.shape);
        if !order.processors.is_empty() {
            // With all processors the host's file says the same.
            mount_bind(alike(view::CPUINFO), "proc/cpuinfo")
                .step("show a sandbox its processors")?;
        }
        for (from, to) in &self.masks {
            mount_bind(format!("{PLACE}/{from}"), to.as_str()).step("hide an entry of /proc")?;
        }
        super::child::on_folder("sys", 0o555, || mount_bind(alike(view::SYS), "sys"))
            .step("attach /sys")?;
        self.show_groups(taken).step("mount /sys/fs/cgroup")
    }

    /// Language runtimes read their limits there; without it they see the host's.
    fn show_groups(&self, taken: &Taken) -> io::Result<()> {
        if self.unified {
            let safe =
                MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
            return Ok(mount("cgroup2", "sys/fs/cgroup", "cgroup2", safe, None)?);
        }
        for ((name, _), group) in self.groups.iter().zip(&taken.groups) {
            attach(group, &Path::new("sys/fs/cgroup").join(name))?;
        }
        Ok(())
    }
}

/// `/proc/cgroups` without how many groups there are; language runtimes look for the controllers.
fn controllers(host: &str) -> Option<String> {
    let line = |line: &str| {
        let mut fields: Vec<_> = line.split('\t').collect();
        if let Some(count) = fields.get_mut(2).filter(|_| !line.starts_with('#')) {
            *count = "1";
        }
        fields.join("\t") + "\n"
    };
    Some(host.lines().map(line).collect())
}

/// `/proc/swaps` with its head only; where it has nothing else it stays as it is.
fn no_swaps(host: &str) -> Option<String> {
    let mut lines = host.lines();
    let head = lines.next()?;
    lines.next()?;
    Some(format!("{head}\n"))
}

/// `/proc/vmstat` with its names, which `vmstat` wants to find.
fn zeros(host: &str) -> Option<String> {
    let line = |line: &str| Some(format!("{} 0\n", line.split(' ').next()?));
    host.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_the_host_s_names_and_not_its_figures() {
        assert_eq!(
            controllers("#name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t140\t1\n").unwrap(),
            "#name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\n"
        );
        assert_eq!(zeros("nr_a 5\nnr_b 7\n").unwrap(), "nr_a 0\nnr_b 0\n");
        assert_eq!(no_swaps("Filename Type\n"), None);
        let one = no_swaps("Filename Type\n/dev/sda2 partition\n");
        assert_eq!(one.as_deref(), Some("Filename Type\n"));
    }
}
