//! The control groups of this instance's sandboxes, in every hierarchy that the host has.
//!
//! Owns `casemate-<instance>` in each hierarchy and the groups below it, one per sandbox where a
//! limit or a figure needs it. They lie beside the service's own group, so that ending the service
//! with its group leaves sandboxes alone. All paths go from descriptors opened once: the launchers
//! work in a mount namespace without `/sys/fs/cgroup`.
//!
//! Three layouts: v2 with all controllers; hybrid (controllers on v1 mounts, an empty v2 tree that
//! still kills and counts); v1 alone. Which controller is where is read from the mount table, never
//! assumed. Must not know what a sandbox is beyond its group's name.

mod discover;
mod found;
mod freeze;
mod meter;
mod sandbox;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use casemate_types::InstanceId;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};

use crate::step::{Step, StepError};
use discover::{Hierarchy, discover};
use found::Found;
pub(crate) use meter::{CpuClock, CpuTime, Memory, Meter, Usage};
pub use sandbox::{Limits, SandboxCgroup};

/// The instance's groups; open descriptors, so it works wherever they are carried.
#[derive(Debug)]
pub struct Cgroups {
    /// The v2 tree, where there is one.
    unified: Option<Tree>,
    /// The v1 hierarchies.
    v1: Vec<Tree>,
}

/// One hierarchy.
#[derive(Debug)]
struct Tree {
    hierarchy: Hierarchy,
    /// `casemate-<instance>` in it.
    instance: OwnedFd,
    /// Whether each sandbox has a group of its own here, or all share the instance's.
    per_sandbox: bool,
}

/// A v1 hierarchy as sandboxes see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShownGroup<'a> {
    pub(crate) controllers: &'a [String],
    /// The instance's group, open.
    pub(crate) instance: &'a OwnedFd,
    /// Whether a sandbox has a group of its own below the instance's.
    pub(crate) per_sandbox: bool,
}

impl ShownGroup<'_> {
    /// Its folder's name below `/sys/fs/cgroup`, as usual on such hosts.
    pub(crate) fn name(&self) -> String {
        self.controllers.join(",")
    }
}

/// Controllers of which language runtimes want to see all before they believe any.
const SHOWN: [&str; 4] = ["cpu", "cpuacct", "cpuset", "memory"];

/// Controllers that give each sandbox a group of its own.
/// `cpuset` limits nothing; but whoever looks at a shared group could be watched.
const PER_SANDBOX: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "cpuset"];

/// What the group of an instance is called before its id.
const INSTANCE_GROUP: &str = "casemate-";

/// Controllers that groups of version 2 are handed where the host has them.
const WANTED: [&str; 5] = ["memory", "cpu", "pids", "io", "cpuset"];

/// Controllers without which a limit would not hold.
const LIMITING: [&str; 3] = ["memory", "cpu", "pids"];

/// What this host lacks of the controllers that limits need: no instance starts without.
pub fn missing_controllers() -> io::Result<Vec<&'static str>> {
    let found = discover()?;
    let missing = |controller: &&str| !found.iter().any(|tree| tree.has(controller));
    Ok(LIMITING.into_iter().filter(missing).collect())
}

impl Cgroups {
    /// The same as [`Cgroups::open`], for who will [`Cgroups::remove`] it: what is about to change
    /// at the host's top is noted in `run_dir`, which all instances of the host share.
    pub fn take(instance: &InstanceId, run_dir: &Path) -> Result<Self, StepError> {
        let found = Found::lock(run_dir).step("lock the note of controllers")?;
        let hierarchies = discover().step("read the table of control groups")?;
        for tree in hierarchies.iter().filter(|tree| tree.unified) {
            found.note(tree).step("note the host's controllers")?;
        }
        Self::open(instance)
    }

    /// Finds the hierarchies and makes the instance's group in each. Idempotent.
    pub fn open(instance: &InstanceId) -> Result<Self, StepError> {
        let name = instance_group(instance);
        let mut found = Self {
            unified: None,
            v1: Vec::new(),
        };
        let hierarchies = discover().step("read the table of control groups")?;
        let is_unified = hierarchies.iter().any(|hierarchy| hierarchy.unified);
        for hierarchy in hierarchies {
            let freezes = !is_unified && hierarchy.has(freeze::FREEZER);
            let per_sandbox = hierarchy.unified
                || freezes
                || PER_SANDBOX
                    .iter()
                    .any(|controller| hierarchy.has(controller));
            let instance = make_instance_group(&hierarchy, &name)?;
            let tree = Tree {
                hierarchy,
                instance,
                per_sandbox,
            };
            if tree.hierarchy.unified {
                found.unified = Some(tree);
            } else {
                found.v1.push(tree);
            }
        }
        // Sandboxes are known by their number in the first hierarchy, and those of an earlier
        // version have no group in this one.
        found
            .v1
            .sort_by_key(|tree| tree.hierarchy.has(freeze::FREEZER));
        found.check()?;
        Ok(found)
    }

    /// Every limit must have a hierarchy that enforces it.
    fn check(&self) -> Result<(), StepError> {
        for controller in LIMITING {
            if self.with(controller).is_none() {
                let missing = io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("the host has no usable '{controller}' controller"),
                );
                return Err(missing).step("find the control groups");
            }
        }
        Ok(())
    }

    /// Bounds the processes of all sandboxes together. The kernel has one set of process numbers,
    /// 32 768 where nobody raised it, and a few sandboxes at their own limits would take them all:
    /// then nobody on the host starts anything, and we make no sandbox.
    pub fn bound_processes(&self) -> Result<(), StepError> {
        let read = |name: &str| -> io::Result<u64> {
            let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}"))?;
            text.trim().parse().map_err(io::Error::other)
        };
        let numbers = read("pid_max").step("read how many processes the host can have")?;
        let threads = read("threads-max").step("read how many threads the host can have")?;
        let bound = processes_bound(numbers.min(threads)).to_string();
        match self.with("pids") {
            Some(tree) => sandbox::write_at(&tree.instance, "pids.max", &bound)
                .step("bound the processes of all sandboxes"),
            None => Ok(()),
        }
    }

    fn with(&self, controller: &str) -> Option<&Tree> {
        self.trees().find(|tree| tree.hierarchy.has(controller))
    }

    fn trees(&self) -> impl Iterator<Item = &Tree> {
        self.unified.iter().chain(&self.v1)
    }

    /// Moves the calling process, which has one thread, into the v1 groups that all sandboxes
    /// share; its children start there.
    pub fn join_shared(&self) -> io::Result<()> {
        let shared = self.v1.iter().filter(|tree| !tree.per_sandbox);
        shared
            .map(|tree| &tree.instance)
            .try_for_each(sandbox::join)
    }

    /// Whether a mount of the v2 tree shows a sandbox its limits.
    pub fn limits_are_unified(&self) -> bool {
        self.unified
            .as_ref()
            .is_some_and(|tree| tree.hierarchy.has("memory"))
    }

    /// The v1 hierarchies in which programs look for their limits, where v2 does not have them.
    pub(crate) fn shown(&self) -> impl Iterator<Item = ShownGroup<'_>> {
        let shown = |tree: &&Tree| {
            SHOWN
                .iter()
                .any(|controller| tree.hierarchy.has(controller))
        };
        self.v1.iter().filter(shown).map(|tree| ShownGroup {
            controllers: &tree.hierarchy.controllers,
            instance: &tree.instance,
            per_sandbox: tree.per_sandbox,
        })
    }

    /// The groups that exist below the instance's, whoever made them.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = std::collections::BTreeSet::new();
        for tree in self.trees().filter(|tree| tree.per_sandbox) {
            for entry in rustix::fs::Dir::read_from(&tree.instance)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type() == rustix::fs::FileType::Directory && !name.starts_with('.') {
                    names.insert(name);
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Removes the instance's own groups with all below them; their sandboxes must be gone. The
    /// last instance leaves the host's controllers as the first one found them.
    pub fn remove(&self, instance: &InstanceId, run_dir: &Path) -> io::Result<()> {
        let found = Found::lock(run_dir)?;
        for name in self.names()? {
            self.delete(&name)?;
        }
        let name = instance_group(instance);
        for tree in self.trees() {
            let root = openat(CWD, &tree.hierarchy.mount, OFlags::PATH, Mode::empty())?;
            match unlinkat(&root, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(tree) = &self.unified {
            // Its groups are gone, whatever comes of this.
            if let Err(error) = found.put_back(&tree.hierarchy, &name) {
                let cause = error.to_string();
                tracing::warn!(cause, "the host's controllers of control groups stay on");
            }
        }
        Ok(())
    }
}

/// Whether any process runs in a group of that instance: its lease is then in use.
pub fn instance_is_populated(instance: &str) -> io::Result<bool> {
    for hierarchy in discover()? {
        let group = hierarchy.mount.join(format!("{INSTANCE_GROUP}{instance}"));
        if hierarchy.unified {
            match std::fs::read_to_string(group.join("cgroup.events")) {
                Ok(events) if events.lines().any(|line| line == "populated 1") => return Ok(true),
                _ => continue,
            }
        }
        // v1 counts nothing for whole trees; a sandbox's group there is enough to be careful.
        let Ok(entries) = std::fs::read_dir(&group) else {
            continue;
        };
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            let procs = std::fs::read_to_string(entry.path().join("cgroup.procs"));
            if procs.is_ok_and(|procs| !procs.is_empty()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn instance_group(instance: &InstanceId) -> String {
    format!("{INSTANCE_GROUP}{instance}")
}

/// Three quarters; the rest is the host's.
fn processes_bound(host_max: u64) -> u64 {
    host_max / 4 * 3
}

fn make_instance_group(hierarchy: &Hierarchy, name: &str) -> Result<OwnedFd, StepError> {
    let root = openat(
        CWD,
        &hierarchy.mount,
        OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open a control group hierarchy")?;
    if hierarchy.unified && !hierarchy.controllers.is_empty() {
        // Children have only the controllers that their parent hands down.
        enable(&root, &hierarchy.controllers).step("hand controllers to the instance's group")?;
    }
    let made = match mkdirat(&root, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => true,
        Err(rustix::io::Errno::EXIST) => false,
        Err(error) => return Err(error).step("make the instance's control group"),
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let group =
        openat(&root, name, flags, Mode::empty()).step("open the instance's control group")?;
    if hierarchy.unified {
        enable(&group, &hierarchy.controllers).step("hand controllers to sandboxes' groups")?;
    }
    if hierarchy.has("cpuset") && !hierarchy.unified {
        // A new v1 group has no processors; nothing can join it before it has.
        sandbox::write_at(&group, "cgroup.clone_children", "1")
            .step("pass processors to sandboxes")?;
    }
    if made && hierarchy.has("cpuset") && !hierarchy.unified {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let all = sandbox::read_at(&root, file).step("read the host's processors")?;
            sandbox::write_at(&group, file, all.trim()).step("pass processors to sandboxes")?;
        }
    }
    if made && hierarchy.has("devices") && !hierarchy.unified {
        sandbox::allow_common_devices(&group).step("restrict devices")?;
    }
    Ok(group)
}

fn enable(group: &OwnedFd, controllers: &[String]) -> io::Result<()> {
    for controller in WANTED
        .iter()
        .filter(|c| controllers.iter().any(|have| have == **c))
    {
        let line = format!("+{controller}");
        match sandbox::write_at(group, "cgroup.subtree_control", &line) {
            // Those without a limit of ours may be missing.
            Err(_) if matches!(*controller, "io" | "cpuset") => {}
            other => other?,
        }
    }
    Ok(())
}
