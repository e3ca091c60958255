//! What a sandbox sees of its machine: its own limits and life, and nothing of the host's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use casemate_runtime::Runtime;
use casemate_types::{InstanceId, SandboxId};

use crate::world::World;

/// How long figures may take to follow.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks until the answer is right, and says the last one otherwise.
pub async fn until(world: &World, sandbox: &SandboxId, ask: &str, right: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = world.ok(sandbox, ask).await;
        if right(&answer) {
            return;
        }
        assert!(Instant::now() < deadline, "{ask}: still {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn number(text: &str) -> u64 {
    let text = text.trim();
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is a number"))
}

/// A line of `meminfo` in KiB.
fn memory(name: &str) -> String {
    format!("awk '$1 == \"{name}:\" {{ print $2 }}' /proc/meminfo")
}

/// Ticks of all processors that were not idle.
const BUSY: &str = "awk '$1 == \"cpu\" { print $2 + $4 }' /proc/stat";

pub async fn programs_see_the_limits_as_their_machine() {
    let world = World::new().await;
    let host = std::thread::available_parallelism().unwrap().get() as u32;
    for (vcpus, memory_mib) in [(1, 128), (2, 300)] {
        let mut spec = world.spec();
        spec.resources.vcpus = vcpus;
        spec.resources.memory_mib = memory_mib;
        let sandbox = spec.sandbox.clone();
        world.create_as(spec).await;
        let total = world.ok(&sandbox, &memory("MemTotal")).await;
        assert_eq!(number(&total), u64::from(memory_mib) << 10);
        let processors = vcpus.min(host).to_string();
        for count in [
            "nproc",
            "grep -c '^processor' /proc/cpuinfo",
            "grep -c '^cpu[0-9]' /proc/stat",
            "ls -d /sys/devices/system/cpu/cpu[0-9]* | wc -l",
        ] {
            assert_eq!(world.ok(&sandbox, count).await, processors, "{count}");
        }
        let allowed = "awk '$1 == \"Cpus_allowed_list:\" { print $2 }' /proc/self/status";
        let allowed = world.ok(&sandbox, allowed).await;
        let online = world.ok(&sandbox, "cat /sys/devices/system/cpu/online");
        assert_eq!(online.await, allowed, "the same numbers everywhere");
        // Life: begun when it was made, by every clock.
        let since = "echo $(( $(date +%s) - $(awk '$1 == \"btime\" { print $2 }' /proc/stat) )) \
                     $(cut -d. -f1 /proc/uptime)";
        let since = world.ok(&sandbox, since).await;
        let (born, up) = since.split_once(' ').unwrap();
        assert!(number(born).abs_diff(number(up)) <= 2, "{since}");
        let load = world.ok(&sandbox, "cat /proc/loadavg").await;
        let programs = load.split(' ').nth(3).and_then(|part| part.split_once('/'));
        assert!(number(programs.unwrap().1) < 64, "{load}");
    }
    world.purge().await;
}

pub async fn figures_follow_what_is_used() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let files = "stat -c %i /proc/meminfo /proc/stat /proc/loadavg";
    let before = world.ok(&sandbox, files).await;
    // Open files show new content: they are rewritten, not replaced.
    let watch = "exec 3< /proc/meminfo; dd if=/dev/zero of=/dev/shm/fill bs=1M count=40 2> /dev/null; \
                 for i in $(seq 150); do \
                 if awk '$1 == \"Shmem:\" && $2 >= 40960 { f = 1 } END { exit !f }' /proc/self/fd/3; \
                 then echo seen; break; fi; sleep 0.1; done";
    assert_eq!(world.ok(&sandbox, watch).await, "seen");
    until(&world, &sandbox, &memory("MemFree"), |free| {
        number(free) < (128 - 40) << 10
    })
    .await;
    world.ok(&sandbox, "rm /dev/shm/fill").await;
    until(&world, &sandbox, &memory("Shmem"), |shared| {
        number(shared) < 1024
    })
    .await;
    let busy = number(&world.ok(&sandbox, BUSY).await);
    let work = "timeout 2 sh -c 'while :; do :; done'; true";
    world.ok(&sandbox, work).await;
    until(&world, &sandbox, BUSY, |now| number(now) >= busy + 50).await;
    let load = "cut -d' ' -f1 /proc/loadavg";
    until(&world, &sandbox, load, |load| load != "0.00").await;
    // A neighbour's work is not seen.
    let other = world.create().await;
    let load = world.ok(&other, load).await;
    assert_eq!(load, "0.00");
    assert_eq!(world.ok(&sandbox, files).await, before, "the same files");
    world.purge().await;
}

pub async fn each_has_a_boot_of_its_own() {
    let world = World::new().await;
    let ask = "cat /proc/sys/kernel/random/boot_id";
    let mut ids = vec![std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap()];
    for _ in 0..2 {
        let sandbox = world.create().await;
        let id = world.ok(&sandbox, ask).await;
        assert_eq!(world.ok(&sandbox, ask).await, id);
        assert_eq!(
            id.split('-').map(str::len).collect::<Vec<_>>(),
            [8, 4, 4, 4, 12]
        );
        ids.push(id);
    }
    let different: BTreeSet<_> = ids.iter().map(|id| id.trim()).collect();
    assert_eq!(different.len(), 3, "{ids:?}");
    world.purge().await;
}

pub async fn the_host_s_machine_is_not_there() {
    let world = World::new().await;
    let sandbox = world.create().await;
    for file in [
        "cmdline",
        "config.gz",
        "diskstats",
        "interrupts",
        "partitions",
        "softirqs",
        "zoneinfo",
        "pressure/cpu",
    ] {
        let on_host = std::fs::read(Path::new("/proc").join(file));
        if on_host.is_ok_and(|content| !content.is_empty()) {
            let (said, _) = world
                .sh(&sandbox, &format!("cat /proc/{file} 2> /dev/null"))
                .await;
            assert_eq!(said, "", "{file}");
        }
    }
    assert_eq!(world.ok(&sandbox, "ls /proc/fs").await, "");
    // Held open, so that the host counts one at least.
    let terminal = std::fs::File::open("/dev/ptmx").unwrap();
    let count = "cat /proc/sys/kernel/pty/nr";
    assert!(number(&std::fs::read_to_string("/proc/sys/kernel/pty/nr").unwrap()) > 0);
    assert_eq!(world.ok(&sandbox, count).await, "0");
    drop(terminal);
    // Names that programs look for, without figures.
    let names = "awk 'NF == 2' /proc/vmstat | wc -l";
    assert!(number(&world.ok(&sandbox, names).await) > 20);
    assert_eq!(world.ok(&sandbox, "awk '$2 != 0' /proc/vmstat").await, "");
    let counts = "awk '!/^#/ { print $3 }' /proc/cgroups | sort -u";
    assert!(["", "1"].contains(&world.ok(&sandbox, counts).await.as_str()));
    assert_eq!(world.ok(&sandbox, "wc -l < /proc/swaps").await, "1");
    // Devices, modules and file systems of the host.
    let host_has: Vec<_> = ["block", "class/block", "module", "fs/ext4"]
        .into_iter()
        .filter(|folder| std::fs::read_dir(Path::new("/sys").join(folder)).is_ok())
        .collect();
    assert!(host_has.len() >= 2, "{host_has:?}");
    for folder in host_has.iter().chain(&["firmware", "bus", "dev/block"]) {
        let list = format!("ls /sys/{folder} 2> /dev/null");
        assert_eq!(world.sh(&sandbox, &list).await.0, "", "{folder}");
    }
    let all = world.ok(&sandbox, "find /sys /proc/self/mountinfo").await;
    assert!(all.lines().count() < 1000, "{}", all.lines().count());
    let mounts = world.ok(&sandbox, "cat /proc/mounts").await;
    assert!(!mounts.contains(" sysfs "), "{mounts}");
    let net =
        "cat /sys/class/net/eth0/mtu; ip link show eth0 | sed -n 's/.* mtu \\([0-9]*\\) .*/\\1/p'";
    let net = world.ok(&sandbox, net).await;
    let (shown, real) = net.split_once('\n').expect("two lines");
    assert_eq!(shown, real, "what is shown of the link is true");
    world.purge().await;
}

pub async fn nobody_inside_changes_what_is_shown() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let all = "cat /proc/meminfo /proc/sys/kernel/random/boot_id /sys/devices/system/cpu/online";
    for attempt in [
        "echo x > /proc/meminfo",
        "echo x > /proc/stat",
        "chmod 666 /proc/meminfo",
        "chown 0 /proc/loadavg",
        "touch /proc/stat",
        "rm /proc/loadavg",
        "mv /tmp/config /proc/meminfo",
        "ln /proc/meminfo /tmp/meminfo",
        "umount /proc/meminfo",
        "mount -o remount,rw /proc/meminfo",
        "mount -t proc proc /mnt",
        "mount -t sysfs sys /mnt",
        "echo x > /sys/devices/system/cpu/online",
        "touch /sys/file",
        "echo 1 > /proc/sys/kernel/random/boot_id",
        "truncate -s 0 /proc/stat",
    ] {
        let (output, code) = world.sh(&sandbox, attempt).await;
        assert!(code != 0, "{attempt}: {output}");
    }
    assert!(world.ok(&sandbox, all).await.starts_with("MemTotal:"));
    world.purge().await;
}

/// The folder of what the sandbox in a slot sees.
pub fn view(instance: &InstanceId, slot: &str) -> PathBuf {
    PathBuf::from(format!("/run/casemate/{instance}/view/{slot}"))
}

pub async fn what_a_sandbox_saw_goes_with_it() {
    let world = World::new().await;
    let record = world.create_as(world.spec()).await;
    let slot = record.facts["slot"].to_string();
    let view = view(&world.instance, &slot);
    assert!(view.join("meminfo").exists());
    world.runtime.stop(&record.sandbox).await.expect("it stops");
    let deadline = Instant::now() + PATIENCE;
    while view.exists() {
        assert!(Instant::now() < deadline, "{slot} is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.purge().await;
}
