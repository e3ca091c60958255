//! What outlives the process: sandboxes, and what a crash leaves.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use casemate_runtime::{AdoptError, DialError, LOG_BYTES_MAX, Runtime, RuntimeRecord};
use casemate_types::InstanceId;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open,
};

use crate::world::{AGENT_VARIABLE, World, agent};
use crate::{dead, host, machine};

/// The control group of such a process, as a service manager gives one; where v2 is mounted.
pub fn service_group(instance: &InstanceId) -> Option<PathBuf> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .map(PathBuf::from)
        .find(|root| root.join("cgroup.procs").exists())
        .map(|root| root.join(format!("test-{instance}")))
}

/// In a process of its own: makes two sandboxes, the second of which had its memory full, prints
/// their records, waits to be killed.
pub async fn hold(folder: &str, instance: &str) {
    let instance = InstanceId::parse(instance).expect("an instance");
    if let Some(group) = service_group(&instance) {
        std::fs::create_dir_all(&group).expect("a group is made");
        std::fs::write(group.join("cgroup.procs"), "0").expect("the group is joined");
    }
    let world = World::open(PathBuf::from(folder), instance, 4).await;
    for number in 0..2 {
        let record = world.create_as(world.spec()).await;
        if number == 1 {
            world.sh(&record.sandbox, "/proc/1/exe eat 400").await;
        }
        let count = "(i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done) \
                     > /dev/null 2>&1 & true";
        world.ok(&record.sandbox, count).await;
        println!(
            "{}",
            serde_json::to_string(&record).expect("a record is text")
        );
    }
    println!("held");
    std::future::pending().await
}

pub struct Held {
    process: Child,
    pub records: Vec<RuntimeRecord>,
    pub folder: PathBuf,
    pub instance: InstanceId,
}

/// Starts such a process and kills it once its sandboxes run.
pub fn killed() -> Held {
    let instance = InstanceId::random();
    let folder = dead::folder(&instance);
    let mut process = Command::new("/proc/self/exe")
        .args([
            "internal",
            "hold",
            folder.to_str().unwrap(),
            instance.as_str(),
        ])
        .env(AGENT_VARIABLE, agent())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut records = Vec::new();
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        let line = line.expect("it speaks");
        match line.as_str() {
            "held" => break,
            line if line.starts_with('{') => records.push(serde_json::from_str(line).unwrap()),
            _ => {}
        }
    }
    assert_eq!(records.len(), 2, "both sandboxes were made");
    // As service managers end a service: with everything in its group, the launchers too.
    match service_group(&instance) {
        Some(group) => {
            std::fs::write(group.join("cgroup.kill"), "1").expect("the group can be killed");
            process.wait().expect("it ends");
            while std::fs::remove_dir(&group).is_err() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        None => {
            process.kill().expect("it can be killed");
            process.wait().expect("it ends");
        }
    }
    Held {
        process,
        records,
        folder,
        instance,
    }
}

pub async fn sandboxes_run_on_and_are_taken_over() {
    let held = killed();
    for record in &held.records {
        // While nobody keeps it up: old, and whole.
        let pid = host::first_process(record);
        let seen = std::fs::read_to_string(format!("/proc/{pid}/root/proc/meminfo")).unwrap();
        assert!(seen.starts_with("MemTotal:         131072 kB\n"), "{seen}");
        // What it writes to its log waits.
        let mut log = log_of(pid);
        log.write_all(b"while nobody read\n").expect("it is taken");
    }
    let world = World::open_unswept(held.folder, held.instance, 4).await;
    let keep: BTreeSet<_> = held
        .records
        .iter()
        .map(|record| record.sandbox.clone())
        .collect();
    for record in &held.records {
        world.runtime.adopt(record).await.expect("it is adopted");
        let log = world.runtime.log(&record.sandbox);
        assert_eq!(log, "while nobody read\n");
    }
    world.runtime.sweep(&keep).await.expect("sweeps");
    let mut exits = world.runtime.exits();
    for sandbox in &keep {
        let before: u64 = world.ok(sandbox, "cat /tmp/count").await.parse().unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let after: u64 = world.ok(sandbox, "cat /tmp/count").await.parse().unwrap();
        assert!(after > before, "its work went on");
        // And what it sees follows again.
        let fill = "dd if=/dev/zero of=/dev/shm/fill bs=1M count=20 2> /dev/null";
        world.ok(sandbox, fill).await;
        let shared = "awk '$1 == \"Shmem:\" { print $2 }' /proc/meminfo";
        let follows = |shared: &str| shared.parse::<u64>().is_ok_and(|kib| kib >= 20 << 10);
        machine::until(&world, sandbox, shared, follows).await;
    }
    // New ones beside them, with slots and layers of their own.
    for _ in 0..6 {
        let fresh = world.create().await;
        world.ok(&fresh, "test ! -e /tmp/count").await;
    }
    // The end of an adopted one is seen, and it can be stopped.
    let (first, second) = (&held.records[0].sandbox, &held.records[1].sandbox);
    let pid = host::first_process(&held.records[0]);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(5), exits.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&exit.sandbox, first);
    world.runtime.stop(second).await.expect("it stops");
    let gone = world.runtime.adopt(&held.records[1]).await;
    assert!(matches!(gone, Err(AdoptError::Gone { .. })), "{gone:?}");
    drop(held.process);
    world.purge().await;
}

/// The agent's end of a sandbox's log.
fn log_of(first_process: i32) -> File {
    let pid = Pid::from_raw(first_process).expect("a process");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("it runs");
    let log = pidfd_getfd(process, 7, PidfdGetfdFlags::empty());
    log.expect("it has a log").into()
}

/// One sandbox's log is read by nobody inside, and what is done to its far end does not reach the
/// near one.
pub async fn a_log_is_one_s_own_and_takes_what_it_can() {
    let world = World::new().await;
    let (one, other) = (world.create().await, world.create().await);
    let pid = world.first_process(&one);
    let mut log = log_of(pid);
    log.write_all(b"a\nb").unwrap();
    assert_eq!(world.runtime.log(&one), "a\n");
    assert_eq!(world.runtime.log(&other), "");
    // By root inside, who has the descriptor: it waits now. The near end does not.
    let (flags, flag) = (fcntl_getfl(&log).unwrap(), OFlags::NONBLOCK);
    fcntl_setfl(&log, flags - flag).unwrap();
    assert_eq!(world.runtime.log(&one), "");
    fcntl_setfl(&log, flags | flag).unwrap();
    let mut written = 0;
    while let Ok(count) = log.write(&[b'x'; 4096]) {
        written += count;
    }
    assert!((4096..=1 << 20).contains(&written), "{written}");
    let mut read = 0;
    for _ in 0..1000 {
        let lines = world.runtime.log(&one);
        assert!(lines.len() <= LOG_BYTES_MAX);
        read += lines.len();
        if lines.is_empty() {
            break;
        }
    }
    assert!(read + 4096 >= written, "{read} of {written}");
    // Its name leads nowhere from inside.
    let again = "(echo forged > /proc/1/fd/7) 2>&1; echo $?";
    let (said, _) = world.sh(&one, again).await;
    assert!(said.contains("denied") && said.ends_with('1'), "{said}");
    world.purge().await;
}

pub async fn a_sweep_ends_what_nobody_keeps() {
    let held = killed();
    let boot_id = |record: &RuntimeRecord| {
        let view = machine::view(&held.instance, &record.facts["slot"].to_string());
        std::fs::read_to_string(view.join("boot_id")).ok()
    };
    let seen = [0, 1].map(|number| boot_id(&held.records[number]));
    let world = World::open_unswept(held.folder.clone(), held.instance.clone(), 2).await;
    let kept = &held.records[0];
    world.runtime.adopt(kept).await.expect("it is adopted");
    let pid = host::first_process(&held.records[1]);
    world
        .runtime
        .sweep(&BTreeSet::from([kept.sandbox.clone()]))
        .await
        .expect("sweeps");
    assert!(host::has_ended(pid), "the other one is gone");
    let busy = host::busy_groups(&world.instance);
    let slots: BTreeSet<_> = busy.iter().filter_map(|g| g.rsplit('/').next()).collect();
    assert_eq!(slots, BTreeSet::from([host::group(kept)]), "{busy:?}");
    // The stock may have the slot again, with files of its own.
    let [kept_now, gone_now] = [0, 1].map(|number| boot_id(&held.records[number]));
    assert!(kept_now.is_some() && kept_now == seen[0], "{kept_now:?}");
    assert!(seen[1].is_some() && gone_now != seen[1], "{gone_now:?}");
    world.ok(&kept.sandbox, "true").await;
    let gone = world.runtime.adopt(&held.records[1]).await;
    assert!(matches!(gone, Err(AdoptError::Gone { .. })), "{gone:?}");
    world.purge().await;
}

pub async fn what_ended_while_nobody_looked_says_how_often_its_memory_was_full() {
    let held = killed();
    for record in &held.records {
        let pid = Pid::from_raw(host::first_process(record)).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        while !host::has_ended(pid.as_raw_nonzero().get()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let world = World::open_unswept(held.folder, held.instance, 2).await;
    let mut counted = Vec::new();
    for record in &held.records {
        match world.runtime.adopt(record).await {
            Err(AdoptError::Gone { memory_kills, .. }) => counted.push(memory_kills),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counted, [Some(0), Some(1)]);
    // What is gone altogether has no count, and neither has another's group of its name.
    world.runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
    let again = world.runtime.adopt(&held.records[1]).await;
    let unknown = |gone: &_| {
        matches!(
            gone,
            Err(AdoptError::Gone {
                memory_kills: None,
                ..
            })
        )
    };
    assert!(unknown(&again), "{again:?}");
    world.purge().await;
}

/// As when its network rules could not be set again.
pub async fn a_sweep_ends_what_was_taken_over_and_is_not_kept() {
    let held = killed();
    let world = World::open_unswept(held.folder, held.instance, 2).await;
    for record in &held.records {
        world.runtime.adopt(record).await.expect("it is adopted");
    }
    let (kept, other) = (&held.records[0], &held.records[1]);
    let keep = BTreeSet::from([kept.sandbox.clone()]);
    world.runtime.sweep(&keep).await.expect("sweeps");
    assert!(host::has_ended(host::first_process(other)));
    let gone = world.runtime.dial(&other.sandbox, 49983).await;
    assert!(matches!(gone, Err(DialError::NotFound(_))), "{gone:?}");
    world.ok(&kept.sandbox, "true").await;
    world.purge().await;
}

/// A frozen process of version 1 does not even die of SIGKILL: it stands for one in a kernel call
/// that does not return.
pub async fn what_does_not_end_keeps_nobody_from_starting() {
    let freezer = PathBuf::from("/sys/fs/cgroup/freezer");
    if !freezer.join("tasks").exists() {
        println!("  no freezer of version 1: nothing here resists being killed");
        return;
    }
    let held = killed();
    let (kept, stuck) = (&held.records[0], host::first_process(&held.records[1]));
    let ice = freezer.join(format!("test-{}", held.instance));
    std::fs::create_dir(&ice).expect("a group is made");
    std::fs::write(ice.join("tasks"), stuck.to_string()).expect("it is put there");
    std::fs::write(ice.join("freezer.state"), "FROZEN").expect("it is frozen");
    let world = World::open_unswept(held.folder.clone(), held.instance.clone(), 2).await;
    world.runtime.adopt(kept).await.expect("it is adopted");
    let keep = BTreeSet::from([kept.sandbox.clone()]);
    let swept = world.runtime.sweep(&keep).await;
    let alive = !host::has_ended(stuck);
    let fresh = world.create().await;
    world.ok(&fresh, "true").await;
    std::fs::write(ice.join("freezer.state"), "THAWED").expect("it is thawed");
    swept.expect("sweeps");
    assert!(alive, "the control: it resisted");
    let gone = async {
        while !host::has_ended(stuck) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), gone).await;
    in_time.expect("it is ended at last");
    world.purge().await;
    std::fs::remove_dir(&ice).expect("the group goes");
}

pub async fn nothing_is_left_after_a_purge() {
    let world = World::new().await;
    let (instance, folder) = (world.instance.clone(), world.folder.clone());
    for _ in 0..6 {
        world.create().await;
    }
    let full = world.create().await;
    world
        .ok(&full, "for i in $(seq 500); do echo > /home/$i; done")
        .await;
    world.runtime.stop(&full).await.expect("it stops");
    let busy = host::state(&instance);
    assert!(!busy.mounts.is_empty() && !busy.groups.is_empty() && !busy.links.is_empty());
    assert!(!busy.loops.is_empty() && !busy.run.is_empty() && busy.children > 0);
    world.purge().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    // The kernel takes links away a moment after their namespace.
    while !host::state(&instance).links.is_empty() && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(host::state(&instance), host::State::default());
    assert!(!folder.exists());
}

/// What version 2 hands down from its top; and a limit that somebody set meanwhile is kept.
pub async fn controllers_of_the_host_stay_as_they_were_found() {
    let tops = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let with_limits = |top: &&PathBuf| {
        let have = std::fs::read_to_string(top.join("cgroup.controllers"));
        have.is_ok_and(|have| have.contains("pids"))
    };
    let Some(top) = tops.iter().find(with_limits) else {
        println!("  no controllers on version 2: nothing is handed down");
        return;
    };
    let handed = || -> BTreeSet<String> {
        let text = std::fs::read_to_string(top.join("cgroup.subtree_control")).unwrap();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let before = handed();
    let world = World::new().await;
    assert!(handed().is_superset(&["memory", "cpu", "pids"].map(str::to_owned).into()));
    let other = World::new().await;
    world.purge().await;
    assert!(handed().contains("memory"), "the other one needs it");
    let theirs = top.join(format!("test-{}", other.instance));
    std::fs::create_dir(&theirs).expect("a group is made");
    std::fs::write(theirs.join("pids.max"), "100").expect("a limit is set");
    other.purge().await;
    let mut expected = before.clone();
    expected.insert("pids".to_owned());
    assert_eq!(handed(), expected);
    let kept = std::fs::read_to_string(theirs.join("pids.max")).unwrap();
    assert_eq!(kept, "100\n");
    std::fs::remove_dir(&theirs).expect("the group goes");
    if !before.contains("pids") {
        std::fs::write(top.join("cgroup.subtree_control"), "-pids").expect("it is turned off");
    }
    let last = World::new().await;
    last.purge().await;
    assert_eq!(handed(), before);
}

pub async fn down_without_purge_keeps_the_pool_for_the_next_start() {
    let world = World::new().await;
    world.create().await;
    world.runtime.teardown(false).await.expect("it ends");
    let (instance, folder) = (world.instance.clone(), world.folder.clone());
    drop(world);
    let state = host::state(&instance);
    assert!(state.mounts.is_empty() && state.groups.is_empty() && state.loops.is_empty());
    assert!(folder.join("node/pool.img").exists());
    let again = World::open(folder, instance, 2).await;
    let sandbox = again.create().await;
    again.ok(&sandbox, "true").await;
    again.purge().await;
}
