//! Which hierarchies the host has, from the table of mounts.

use std::io;
use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) mount: PathBuf,
    pub(super) unified: bool,
    /// What it controls; a named v1 hierarchy has none.
    pub(super) controllers: Vec<String>,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|have| have == controller)
    }
}

pub(super) fn discover() -> io::Result<Vec<Hierarchy>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = parse(&table);
    for hierarchy in found.iter_mut().filter(|hierarchy| hierarchy.unified) {
        let have = std::fs::read_to_string(hierarchy.mount.join("cgroup.controllers"))?;
        hierarchy.controllers = have.split_whitespace().map(str::to_owned).collect();
    }
    Ok(found)
}

/// Words of v1's super block options that are no controllers.
const NO_CONTROLLERS: [&str; 6] = ["rw", "ro", "xattr", "noprefix", "clone_children", "none"];

fn parse(table: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in table.lines() {
        let Some((mount, rest)) = line.split_once(" - ") else {
            continue;
        };
        let Some(path) = mount.split(' ').nth(4) else {
            continue;
        };
        let mut rest = rest.split(' ');
        let (kind, options) = (rest.next().unwrap_or(""), rest.nth(1).unwrap_or(""));
        let hierarchy = match kind {
            "cgroup2" => Hierarchy {
                mount: unescape(path),
                unified: true,
                controllers: vec![],
            },
            "cgroup" => Hierarchy {
                mount: unescape(path),
                unified: false,
                controllers: options
                    .split(',')
                    .filter(|word| !word.contains('=') && !NO_CONTROLLERS.contains(word))
                    .map(str::to_owned)
                    .collect(),
            },
            _ => continue,
        };
        // The same hierarchy may be mounted twice; the first is as good.
        let seen = |other: &Hierarchy| {
            other.unified == hierarchy.unified
                && (hierarchy.unified
                    || (other.controllers == hierarchy.controllers
                        && !hierarchy.controllers.is_empty()))
        };
        if !found.iter().any(seen) {
            found.push(hierarchy);
        }
    }
    found
}

fn unescape(path: &str) -> PathBuf {
    Path::new(&path.replace("\\040", " ")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(table: &str, expected: &[(&str, bool, &[&str])]) {
        let found = parse(table);
        let found: Vec<_> = found
            .iter()
            .map(|h| {
                let controllers: Vec<_> = h.controllers.iter().map(String::as_str).collect();
                (h.mount.to_str().unwrap(), h.unified, controllers)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(m, u, c)| (*m, *u, c.to_vec()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_hybrid_host_has_controllers_on_v1_and_an_empty_v2_tree() {
        check(
            "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
             42 31 0:39 / /mnt rw - ext4 /dev/sda rw\n",
            &[
                ("/sys/fs/cgroup/cpu", false, &["cpu", "cpuacct"]),
                ("/sys/fs/cgroup/systemd", false, &[]),
                ("/sys/fs/cgroup/unified", true, &[]),
            ],
        );
    }

    #[test]
    fn a_hierarchy_mounted_twice_counts_once() {
        check(
            "1 1 0:1 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
             2 1 0:1 / /other\\040place rw - cgroup2 cgroup2 rw\n",
            &[("/sys/fs/cgroup", true, &[])],
        );
    }
}
