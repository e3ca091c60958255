//! What a sandbox's root cannot do, and what it can.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use casemate_runtime::{DialError, Runtime};
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::world::{AGENT_VARIABLE, World, agent};

const EPERM: i32 = 1;
const EAFNOSUPPORT: i32 = 97;
const ENOSYS: i32 = 38;
const ALLOWED: i32 = 0;

pub async fn root_inside_is_nobody_outside() {
    let world = World::new().await;
    let (one, two) = (world.create().await, world.create().await);
    let uid = |sandbox| {
        let pid = world.first_process(sandbox);
        std::fs::metadata(format!("/proc/{pid}")).unwrap().uid()
    };
    let (one, two) = (uid(&one), uid(&two));
    assert!(one >= 1 << 27 && two >= 1 << 27, "{one} {two}");
    assert!(one.abs_diff(two) >= 65_536, "ranges do not overlap");
    world.purge().await;
}

/// What a sandbox's root lies over: nothing to find, for whoever got there.
pub async fn nothing_lies_below_a_root() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let mounted = "awk '{ print $5 }' /proc/self/mountinfo | sort | uniq -d; ls -d /own /figures";
    let (output, _) = world.sh(&sandbox, mounted).await;
    assert!(
        !output.lines().any(|line| line.starts_with('/')),
        "{output}"
    );
    let pid = world.first_process(&sandbox).to_string();
    let below = Command::new("/proc/self/exe")
        .args(["internal", "below", &pid])
        .output();
    let below = below.expect("it runs");
    let said = String::from_utf8_lossy(&below.stdout);
    // Without a process; what else is in a `/proc` is the kernel's.
    let expected = ["/: own proc", "/own:", "processes: "];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{below:?}");
    world.purge().await;
}

/// In a process of its own, as the host's root: takes a sandbox's root away and lists what is there.
pub fn list_below(pid: &str) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    let enter = || move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount));
    enter()?;
    unmount("/", UnmountFlags::DETACH)?;
    enter()?;
    let list = |folder: &str| -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
        let names = names.map(|name| Ok(name?.to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    println!("/: {}", list("/")?.join(" "));
    println!(
        "{}",
        format!("/own: {}", list("/own")?.join(" ")).trim_end()
    );
    let is_process = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes: Vec<_> = list("/proc")?.into_iter().filter(is_process).collect();
    println!("processes: {}", processes.join(" "));
    Ok(())
}

/// Where the host's mounts are shared, as systemd has them.
pub async fn mounts_of_a_sandbox_are_no_peers_of_the_host_s() {
    let program = std::env::current_exe().expect("it has a name");
    let tried = Command::new("unshare")
        .args(["--mount", "--propagation", "shared"])
        .arg(program)
        .args(["internal", "shared"])
        .env(AGENT_VARIABLE, agent())
        .output()
        .expect("it runs");
    assert!(tried.status.success(), "{tried:?}");
}

/// In a process of its own.
pub async fn in_a_namespace_of_shared_mounts() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let table = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let views = format!("/run/casemate/{}/view", world.instance);
    let host = table("self");
    let is_shared = |line: &str| line.contains(&views) && line.contains(" shared:");
    assert!(host.lines().any(is_shared), "{host}");
    let own = table(&world.first_process(&sandbox).to_string());
    assert!(own.contains(" /proc/meminfo "), "{own}");
    let peer = |line: &&str| line.contains(" shared:") || line.contains(" master:");
    assert_eq!(own.lines().find(peer), None);
    world.purge().await;
}

pub async fn forbidden_calls_are_refused() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let expected = [
        ("vsock", EAFNOSUPPORT),
        ("packet", EAFNOSUPPORT),
        ("alg", EAFNOSUPPORT),
        ("netfilter", EAFNOSUPPORT),
        ("socketpair-tipc", EAFNOSUPPORT),
        ("raw", EPERM),
        ("mount", EPERM),
        ("umount", EPERM),
        ("fsopen", EPERM),
        ("open-tree", EPERM),
        ("unshare-user", EPERM),
        ("unshare-mount", EPERM),
        ("clone-user", EPERM),
        ("clone3", ENOSYS),
        ("setns", EPERM),
        ("io-uring", ENOSYS),
        ("bpf", EPERM),
        ("perf", EPERM),
        ("keyctl", EPERM),
        ("add-key", EPERM),
        ("handle", EPERM),
        ("userfaultfd", EPERM),
        ("tiocsti", EPERM),
        ("tiocsti-high", EPERM),
        ("syslog", EPERM),
        ("reboot", EPERM),
        ("mknod", EPERM),
        ("x32", ENOSYS),
        ("route", ALLOWED),
        ("ping", ALLOWED),
        ("tcp6", ALLOWED),
        ("getpid", ALLOWED),
        ("personality-query", ALLOWED),
    ];
    for (attack, errno) in expected {
        let said = world
            .ok(&sandbox, &format!("/proc/1/exe attack {attack}"))
            .await;
        assert_eq!(said, errno.to_string(), "{attack}");
    }
    world.purge().await;
}

pub async fn the_filter_and_not_the_kernel_refuses() {
    // The control: outside, as root, the same calls fail otherwise or not at all.
    for (attack, refusal) in [
        ("vsock", EAFNOSUPPORT),
        ("packet", EAFNOSUPPORT),
        ("keyctl", EPERM),
        ("clone3", ENOSYS),
    ] {
        let done = std::process::Command::new(crate::world::agent())
            .args(["attack", attack])
            .output()
            .expect("the stand-in runs");
        let said = String::from_utf8(done.stdout).expect("a number");
        assert_ne!(said.trim(), refusal.to_string(), "{attack}");
    }
}

pub async fn nothing_of_the_host_shows() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let mounts = world.ok(&sandbox, "cat /proc/self/mountinfo").await;
    for word in [
        "casemate", "/node", "pool", "/tmp/", "loop", "ext4", "btrfs",
    ] {
        assert!(!mounts.contains(word), "{word} in {mounts}");
    }
    assert_eq!(
        world
            .ok(
                &sandbox,
                "cat /proc/cmdline /proc/partitions /proc/diskstats"
            )
            .await,
        ""
    );
    assert_eq!(
        world
            .ok(&sandbox, "ls /proc | grep -c '^[0-9]'")
            .await
            .lines()
            .count(),
        1
    );
    let pids = world
        .ok(&sandbox, "ls /proc | grep '^[0-9]' | sort -n | tail -1")
        .await;
    assert!(
        pids.parse::<u32>().unwrap() < 200,
        "its own numbers of processes: {pids}"
    );
    world.purge().await;
}

pub async fn what_is_shared_cannot_be_written() {
    let world = World::new().await;
    let sandbox = world.create().await;
    for attempt in [
        "echo x > /dev/file",
        "rm /dev/null",
        "chmod 600 /dev/null",
        "echo x > /proc/cmdline",
        "echo 1 > /proc/sys/kernel/panic",
        "echo 5 > /proc/sys/user/max_user_namespaces",
        "echo x > /sys/kernel/mm/transparent_hugepage/enabled",
        "echo c > /proc/sysrq-trigger",
        "echo x >> /proc/1/exe",
        "ulimit -n 2000000",
        "ulimit -c unlimited",
        "ip addr add 10.9.9.9/32 dev eth0",
        "ip link set eth0 down",
        "umount /dev",
        "chown 70000 /tmp",
        "renice -n -5 -p 1 && echo -500 > /proc/1/oom_score_adj",
    ] {
        let (output, code) = world.sh(&sandbox, attempt).await;
        assert!(code != 0, "{attempt}: {output}");
    }
    let (output, code) = world.sh(&sandbox, "kill -9 1; sleep 0.2; echo alive").await;
    assert_eq!((output.as_str(), code), ("alive", 0));
    world.purge().await;
}

pub async fn ordinary_work_is_not_in_the_way() {
    let world = World::new().await;
    let sandbox = world.create().await;
    for command in [
        "echo x > /dev/null && head -c 4 /dev/urandom | wc -c | grep -q 4",
        "echo x > /dev/shm/a && rm /dev/shm/a",
        "mkfifo /tmp/fifo",
        "ln /tmp/fifo /tmp/hard",
        "chown 1000:1000 /tmp/fifo && chmod 4755 /tmp/fifo && chown 65535 /tmp/fifo",
        "su user -c 'id -u' | grep -q 1000",
        "chroot / true",
        "hostname | grep -q box",
        "setsid true",
        "df /",
        "free",
        "ps",
        "script -c true /dev/null < /dev/null || true",
        "test -e /proc/1/root/bin/sh",
        "mkdir /a && mv /a /b && rmdir /b",
        "rm -r /home/user && mkdir /home/user",
    ] {
        world.ok(&sandbox, command).await;
    }
    world.purge().await;
}

pub async fn ports_on_either_loopback_are_reached_and_closed_ones_say_so() {
    let world = World::new().await;
    let sandbox = world.create().await;
    world
        .ok(
            &sandbox,
            "echo four > /tmp/index.html; httpd -p 127.0.0.1:8004 -h /tmp",
        )
        .await;
    world.ok(&sandbox, "httpd -p '[::1]:8006' -h /tmp").await;
    world.ok(&sandbox, "httpd -p 80 -h /tmp").await;
    for port in [8004, 8006, 80] {
        let stream = world
            .runtime
            .dial(&sandbox, port)
            .await
            .expect("the port is open");
        assert!(stream.nodelay().unwrap());
        let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stream
            .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("four"), "{port}: {answer}");
    }
    let closed = world.runtime.dial(&sandbox, 8005).await;
    assert!(
        matches!(closed, Err(DialError::PortClosed { port: 8005, .. })),
        "{closed:?}"
    );
    // A neighbour has ports of its own.
    let other = world.create().await;
    let closed = world.runtime.dial(&other, 8004).await;
    assert!(
        matches!(closed, Err(DialError::PortClosed { .. })),
        "{closed:?}"
    );
    world.runtime.stop(&sandbox).await.unwrap();
    let gone = world.runtime.dial(&sandbox, 8004).await;
    assert!(matches!(gone, Err(DialError::NotFound(_))), "{gone:?}");
    world.purge().await;
}
