//! What sandboxes with the same processors share and never changes: `cpuinfo`, and a whole `/sys`.
//!
//! No sandbox has the kernel's `/sys`: nearly all of it is about the host. It gets a folder with
//! what programs ask for: the processors, one memory node, its network links, and the empty folders
//! that listings expect. Processors keep their numbers of the host, because `sched_getcpu` answers
//! with them; `possible` is the host's, because programs size their tables by it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use casemate_net::SlotLink;

/// Where the host says what its processors are.
const CPU: &str = "/sys/devices/system/cpu";

/// Files of the host that are as true inside, as they are.
const COPIED: [&str; 5] = [
    "devices/system/cpu/kernel_max",
    "devices/system/cpu/possible",
    "kernel/mm/transparent_hugepage/defrag",
    "kernel/mm/transparent_hugepage/enabled",
    "kernel/mm/transparent_hugepage/hpage_pmd_size",
];
const CACHE: [&str; 6] = [
    "coherency_line_size",
    "level",
    "number_of_sets",
    "size",
    "type",
    "ways_of_associativity",
];
const FOLDERS: [&str; 14] = [
    "block",
    "bus",
    "class/block",
    "class/tty",
    "dev/block",
    "dev/char",
    "devices/virtual",
    "firmware",
    "fs/cgroup",
    "kernel/debug",
    "kernel/mm/hugepages",
    "kernel/security",
    "module",
    "power",
];

/// What of the host is true inside as well; read once.
#[derive(Debug)]
pub(super) struct Host {
    cpuinfo: String,
    copied: Vec<(&'static str, String)>,
    /// Of any processor: they are alike but for what is shared among them.
    caches: Vec<Vec<(&'static str, String)>>,
    link: SlotLink,
    /// Folders of control group hierarchies, and other names for them.
    groups: Vec<(String, Vec<String>)>,
}

impl Host {
    pub(super) fn read(link: SlotLink, groups: Vec<(String, Vec<String>)>) -> io::Result<Self> {
        let file = |path: &str| std::fs::read_to_string(Path::new("/sys").join(path)).ok();
        let copied = COPIED.into_iter();
        let copied = copied.filter_map(|path| Some((path, file(path)?)));
        let cache = |number: u32| {
            let folder = Path::new(CPU).join(format!("cpu0/cache/index{number}"));
            let read = |name: &&str| std::fs::read_to_string(folder.join(name)).ok();
            let files = CACHE.iter().filter_map(|name| Some((*name, read(name)?)));
            let files: Vec<_> = files.collect();
            (!files.is_empty()).then_some(files)
        };
        Ok(Self {
            cpuinfo: std::fs::read_to_string("/proc/cpuinfo")?,
            copied: copied.collect(),
            caches: (0..).map_while(cache).collect(),
            link,
            groups,
        })
    }

    /// Fills a folder: `cpuinfo` and `sys`.
    pub(super) fn furnish(&self, folder: &Path, processors: &[u32]) -> io::Result<()> {
        std::fs::write(folder.join("cpuinfo"), cpuinfo(&self.cpuinfo, processors))?;
        let mut tree = Tree::new(folder.join("sys"));
        for path in FOLDERS {
            tree.folder(path)?;
        }
        for (path, content) in &self.copied {
            tree.file(path, content)?;
        }
        self.processors(&mut tree, processors)?;
        self.links(&mut tree)?;
        for (name, others) in &self.groups {
            tree.folder(&format!("fs/cgroup/{name}"))?;
            for other in others {
                std::os::unix::fs::symlink(name, tree.root.join("fs/cgroup").join(other))?;
            }
        }
        Ok(())
    }

    fn processors(&self, tree: &mut Tree, processors: &[u32]) -> io::Result<()> {
        let (list, mask) = (list(processors), mask(processors));
        for name in ["online", "present"] {
            tree.line(&format!("devices/system/cpu/{name}"), &list)?;
        }
        tree.line("devices/system/cpu/isolated", "")?;
        for (index, processor) in processors.iter().enumerate() {
            let own = (self::list(&[*processor]), self::mask(&[*processor]));
            let all = (list.clone(), mask.clone());
            let folder = format!("devices/system/cpu/cpu{processor}");
            let topology = format!("{folder}/topology");
            tree.line(&format!("{topology}/core_id"), &index.to_string())?;
            for name in ["physical_package_id", "die_id"] {
                tree.line(&format!("{topology}/{name}"), "0")?;
            }
            for (name, (list, mask)) in [
                ("thread_siblings", &own),
                ("core_cpus", &own),
                ("core_siblings", &all),
                ("die_cpus", &all),
                ("package_cpus", &all),
            ] {
                tree.line(&format!("{topology}/{name}"), mask)?;
                tree.line(&format!("{topology}/{name}_list"), list)?;
            }
            for (number, cache) in self.caches.iter().enumerate() {
                let folder = format!("{folder}/cache/index{number}");
                for (name, content) in cache {
                    tree.file(&format!("{folder}/{name}"), content)?;
                }
                let level = cache.iter().find(|(name, _)| *name == "level");
                let last = level.is_some_and(|(_, level)| level.trim() == "3");
                let (list, mask) = if last { &all } else { &own };
                tree.line(&format!("{folder}/shared_cpu_list"), list)?;
                tree.line(&format!("{folder}/shared_cpu_map"), mask)?;
            }
        }
        for name in [
            "online",
            "possible",
            "has_cpu",
            "has_memory",
            "has_normal_memory",
        ] {
            tree.line(&format!("devices/system/node/{name}"), "0")?;
        }
        for (name, content) in [("cpulist", &*list), ("cpumap", &*mask), ("distance", "10")] {
            tree.line(&format!("devices/system/node/node0/{name}"), content)?;
        }
        Ok(())
    }

    fn links(&self, tree: &mut Tree) -> io::Result<()> {
        let hardware = self.link.hardware_address.iter();
        let hardware: Vec<_> = hardware.map(|byte| format!("{byte:02x}")).collect();
        let mtu = self.link.mtu.to_string();
        let lo = [
            ("address", "00:00:00:00:00:00"),
            ("carrier", "1"),
            ("flags", "0x9"),
            ("ifindex", "1"),
            ("mtu", "65536"),
            ("operstate", "unknown"),
            ("type", "772"),
        ];
        let eth0 = [
            ("address", &*hardware.join(":")),
            ("carrier", "1"),
            ("duplex", "full"),
            ("flags", "0x1083"),
            ("ifindex", "2"),
            ("mtu", &*mtu),
            ("operstate", "up"),
            ("speed", "10000"),
            ("type", "1"),
        ];
        tree.folder("class/net")?;
        for (link, files) in [("lo", &lo[..]), (self.link.name, &eth0[..])] {
            for (name, content) in files {
                tree.line(&format!("devices/virtual/net/{link}/{name}"), content)?;
            }
            let to = format!("../../devices/virtual/net/{link}");
            std::os::unix::fs::symlink(to, tree.root.join("class/net").join(link))?;
        }
        Ok(())
    }
}

/// A folder being filled. Files with the same content are one file under many names: each one takes
/// a page of memory.
struct Tree {
    root: PathBuf,
    files: HashMap<String, PathBuf>,
}

impl Tree {
    fn new(root: PathBuf) -> Self {
        Self {
            root,
            files: HashMap::new(),
        }
    }

    fn folder(&self, path: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.root.join(path))
    }

    fn file(&mut self, path: &str, content: &str) -> io::Result<()> {
        let path = self.root.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if let Some(same) = self.files.get(content) {
            return std::fs::hard_link(same, path);
        }
        std::fs::write(&path, content)?;
        self.files.insert(content.to_owned(), path);
        Ok(())
    }

    fn line(&mut self, path: &str, content: &str) -> io::Result<()> {
        self.file(path, &format!("{content}\n"))
    }
}

/// The host's `cpuinfo` with those processors only, as cores of one package.
fn cpuinfo(host: &str, processors: &[u32]) -> String {
    let mut text = String::with_capacity(host.len());
    let mut index = 0;
    for block in host.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let number = field(block, "processor").and_then(|number| number.parse::<u32>().ok());
        if number.is_some_and(|number| !processors.contains(&number)) {
            continue;
        }
        for line in block.lines() {
            let name = line.split(':').next().unwrap_or("").trim();
            let ours = match name {
                "physical id" => Some(0),
                "siblings" | "cpu cores" => Some(processors.len()),
                "core id" | "apicid" | "initial apicid" => Some(index),
                _ => None,
            };
            match (ours, line.split_once(':')) {
                (Some(value), Some((name, _))) => text.push_str(&format!("{name}: {value}")),
                _ => text.push_str(line),
            }
            text.push('\n');
        }
        text.push('\n');
        index += 1;
    }
    text
}

fn field<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    block.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Numbers as the kernel lists them: `0-3,8`.
pub(super) fn list(numbers: &[u32]) -> String {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    let mut parts = Vec::new();
    let mut rest = &numbers[..];
    while let Some(first) = rest.first() {
        let run = rest.windows(2).take_while(|pair| pair[1] == pair[0] + 1);
        let length = run.count() + 1;
        parts.push(match length {
            1 => first.to_string(),
            _ => format!("{first}-{}", rest[length - 1]),
        });
        rest = &rest[length..];
    }
    parts.join(",")
}

/// Numbers as the kernel's masks: groups of 32 bits in hexadecimal, the highest first.
fn mask(numbers: &[u32]) -> String {
    let highest = numbers.iter().max().copied().unwrap_or(0);
    let mut groups = vec![0_u32; (highest / 32 + 1) as usize];
    for number in numbers {
        groups[(number / 32) as usize] |= 1 << (number % 32);
    }
    let mut groups = groups.iter().rev();
    let first = groups.next().map(|group| format!("{group:x}"));
    let rest = groups.map(|group| format!("{group:08x}"));
    let all: Vec<_> = first.into_iter().chain(rest).collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_listed_as_the_kernel_does() {
        assert_eq!(list(&[]), "");
        assert_eq!(list(&[3]), "3");
        assert_eq!(list(&[2, 0, 1, 8]), "0-2,8");
        assert_eq!(mask(&[0, 1]), "3");
        assert_eq!(mask(&[4]), "10");
        assert_eq!(mask(&[1, 33]), "2,00000002");
    }

    #[test]
    fn other_processors_are_not_told_about() {
        let block = |number: u32| {
            format!(
                "processor\t: {number}\nmodel name\t: A: B\nphysical id\t: 1\nsiblings\t: 4\n\
                 core id\t\t: {number}\ncpu cores\t: 4\napicid\t\t: 9\n\n"
            )
        };
        let host: String = (0..4).map(block).collect();
        assert_eq!(
            cpuinfo(&host, &[2, 3]),
            "processor\t: 2\nmodel name\t: A: B\nphysical id\t: 0\nsiblings\t: 2\ncore id\t\t: 0\n\
             cpu cores\t: 2\napicid\t\t: 0\n\n\
             processor\t: 3\nmodel name\t: A: B\nphysical id\t: 0\nsiblings\t: 2\ncore id\t\t: 1\n\
             cpu cores\t: 2\napicid\t\t: 1\n\n"
        );
    }
}
