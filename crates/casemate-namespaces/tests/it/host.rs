//! What an instance has on the host, found by its name.

use std::path::Path;

use casemate_runtime::RuntimeRecord;
use casemate_types::InstanceId;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    pub mounts: Vec<String>,
    pub groups: Vec<String>,
    pub links: Vec<String>,
    pub loops: Vec<String>,
    pub run: Vec<String>,
    /// Processes that this one started.
    pub children: usize,
}

pub fn state(instance: &InstanceId) -> State {
    let name = instance.as_str();
    let lines = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts are listed");
    let mounts = lines
        .lines()
        .filter(|line| line.contains(name))
        .map(str::to_owned)
        .collect();
    let mut groups = Vec::new();
    // Version 2 alone is mounted there itself; else each hierarchy has a folder of its own.
    let root = "/sys/fs/cgroup".to_owned();
    for hierarchy in folder(&root).into_iter().chain([root]) {
        let group = format!("{hierarchy}/casemate-{name}");
        for one in folder(&group) {
            if Path::new(&one).is_dir() {
                groups.push(one);
            }
        }
        if Path::new(&group).exists() {
            groups.push(group);
        }
    }
    let prefix = format!("/cm{}", &name[..6]);
    let links = folder("/sys/class/net")
        .into_iter()
        .filter(|link| link.contains(&prefix))
        .collect();
    let backing = |block: &String| std::fs::read_to_string(format!("{block}/loop/backing_file"));
    let loops = folder("/sys/block")
        .iter()
        .flat_map(backing)
        .filter(|file| file.contains(name))
        .collect();
    let mut run: Vec<_> = folder("/run/casemate")
        .into_iter()
        .filter(|path| path.contains(name))
        .collect();
    run.extend(
        folder("/run/casemate/leases")
            .into_iter()
            .filter(|path| std::fs::read_to_string(path).is_ok_and(|owner| owner.trim() == name)),
    );
    let children = children().len();
    State {
        mounts,
        groups,
        links,
        loops,
        run,
        children,
    }
}

/// The processes that this one started.
pub fn children() -> Vec<i32> {
    folder("/proc/self/task")
        .iter()
        .flat_map(|task| std::fs::read_to_string(format!("{task}/children")))
        .flat_map(|list| {
            list.split_whitespace()
                .flat_map(str::parse)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The host's number of a sandbox's first process.
pub fn first_process(record: &RuntimeRecord) -> i32 {
    let pid = record.facts["pid"].as_i64().expect("it has a number");
    i32::try_from(pid).expect("it is a process's")
}

/// Name of a sandbox's control groups.
pub fn group(record: &RuntimeRecord) -> &str {
    record.facts["group"].as_str().expect("it has groups")
}

/// The groups of an instance in which processes are.
pub fn busy_groups(instance: &InstanceId) -> Vec<String> {
    let has_processes = |group: &String| {
        let procs = std::fs::read_to_string(format!("{group}/cgroup.procs"));
        procs.is_ok_and(|procs| !procs.is_empty())
    };
    state(instance)
        .groups
        .into_iter()
        .filter(|group| !group.ends_with(&format!("casemate-{instance}")))
        .filter(has_processes)
        .collect()
}

/// Whether the host has no tree of version 2: nothing that is frozen dies there.
pub fn has_groups_of_version_1_alone() -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts are listed");
    !mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("cgroup2"))
}

/// Whether a process is gone, or only waits for its parent to notice.
pub fn has_ended(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    }
}

fn folder(path: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
