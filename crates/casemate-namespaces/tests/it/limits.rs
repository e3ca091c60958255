//! Limits by their effect.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use casemate_namespaces::pool::{Again, Layer, Pool, PoolConfig};
use casemate_runtime::{DiskLimit, Runtime};
use casemate_types::InstanceId;
use rustix::fs::{FallocateFlags, fallocate};

use crate::world::{self, World};
use crate::{dead, host};

/// The stand-in as a program inside.
const AGENT: &str = "/proc/1/exe";

pub async fn memory_beyond_the_limit_ends_the_process_and_not_the_sandbox() {
    let world = World::new().await;
    let sandbox = world.create().await;
    assert_eq!(
        world.ok(&sandbox, &format!("{AGENT} eat 40")).await,
        "ate 40 MiB"
    );
    let (output, code) = world.sh(&sandbox, &format!("{AGENT} eat 400")).await;
    assert!(code != 0 && !output.contains("ate"), "{code}: {output}");
    world.ok(&sandbox, "true").await;
    // It is told of, once, and of no neighbour.
    let neighbour = world.create().await;
    let begun = Instant::now();
    while world.memory_kills(&sandbox) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody is told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.ok(&sandbox, "true").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.memory_kills(&sandbox), 1);
    assert_eq!(world.memory_kills(&neighbour), 0);
    world.purge().await;
}

/// Of 128 MiB: whoever fills it gets an error, and can still run what empties it.
pub async fn shared_memory_ends_before_memory_does() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=100 2>&1";
    let (output, code) = world.sh(&sandbox, fill).await;
    assert!(
        code != 0 && output.contains("No space left"),
        "{code}: {output}"
    );
    assert_eq!(
        world.ok(&sandbox, "stat -c %s /dev/shm/x").await,
        (64 << 20).to_string()
    );
    world.ok(&sandbox, "rm /dev/shm/x").await;
    world.purge().await;
}

pub async fn processes_beyond_the_limit_are_not_made() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let many = "for i in $(seq 200); do sleep 3 & done 2>&1; true";
    let (output, _) = world.sh(&sandbox, many).await;
    assert!(output.contains("can't fork"), "{output}");
    assert!(output.contains("temporarily unavailable"), "{output}");
    world.purge().await;
}

pub async fn processor_time_is_throttled() {
    let world = World::new().await;
    let mut spec = world.spec();
    spec.resources.vcpus = 1;
    let sandbox = spec.sandbox.clone();
    world.create_as(spec).await;
    assert_eq!(world.ok(&sandbox, "nproc").await, "1");
    // Two busy loops on one virtual processor: together one second a second at most.
    let begun = Instant::now();
    let busy = "for i in 1 2; do timeout 2 sh -c 'while :; do :; done' & done; wait; \
                cut -d' ' -f16,17 /proc/self/stat";
    let ticks = world.sh(&sandbox, busy).await.0;
    let wall = begun.elapsed();
    let spent: u64 = ticks
        .lines()
        .last()
        .unwrap_or("")
        .split(' ')
        .flat_map(str::parse::<u64>)
        .sum();
    let spent = Duration::from_millis(spent * 10);
    assert!(wall >= Duration::from_secs(2), "{wall:?}");
    assert!(
        spent <= wall + Duration::from_millis(200),
        "{spent:?} of {wall:?}"
    );
    world.purge().await;
}

pub async fn disk_beyond_the_limit_is_refused_and_the_pool_lives_on() {
    let world = World::new().await;
    assert_eq!(world.runtime.capabilities().disk_limit, DiskLimit::Enforced);
    let (full, other) = (world.create().await, world.create().await);
    let write = "dd if=/dev/urandom of=/fill bs=1M count=200 2>&1; sync; ls -l /fill";
    let (output, _) = world.sh(&full, write).await;
    assert!(
        output.contains("quota exceeded") || output.contains("No space"),
        "{output}"
    );
    let used = world.runtime.disk_used_bytes(&full).unwrap().unwrap();
    assert!(used <= 66 << 20, "{used}");
    world
        .ok(
            &other,
            "dd if=/dev/zero of=/fine bs=1M count=20 && rm /fine",
        )
        .await;
    // Room comes back.
    world
        .ok(
            &full,
            "rm /fill; sync; sleep 1; dd if=/dev/zero of=/less bs=1M count=10",
        )
        .await;
    world.purge().await;
}

pub async fn many_small_files_are_no_way_around_the_disk_limit() {
    let world = World::new().await;
    let sandbox = world.create().await;
    // Twice the limit of 64 MiB, in files small enough to lie in the file system's own trees.
    let write = "s=$(head -c 1900 /dev/zero | tr '\\0' x); mkdir /many; i=0; \
                 (while [ $i -lt 70000 ] && printf %s $s > /many/$i; do i=$((i+1)); done; \
                 echo $i) 2> /dev/shm/error; cat /dev/shm/error";
    let (output, _) = world.sh(&sandbox, write).await;
    let (made, error) = output.split_once('\n').unwrap_or((&output, ""));
    let made: u32 = made.parse().unwrap_or_else(|_| panic!("{output}"));
    assert!(made > 1000 && made < 70_000, "{output}");
    assert!(
        error.contains("quota exceeded") || error.contains("No space"),
        "{output}"
    );
    world.purge().await;
}

pub async fn terminals_have_a_number_of_their_own() {
    let world = World::new().await;
    let (full, other) = (world.create().await, world.create().await);
    assert_eq!(
        world.ok(&full, &format!("{AGENT} terminals")).await,
        "64, then error 28"
    );
    let hold = format!("({AGENT} terminals hold > /dev/null 2>&1 &); sleep 1; ls /dev/pts | wc -l");
    assert_eq!(world.ok(&full, &hold).await, "65");
    // Another sandbox has its own.
    assert_eq!(
        world.ok(&other, &format!("{AGENT} terminals")).await,
        "64, then error 28"
    );
    world.purge().await;
}

/// A pool that belongs to no runtime.
fn open_pool(folder: &Path, bytes_max: u64) -> Pool {
    let pool = Pool::open(PoolConfig {
        folder: folder.join("node"),
        mount: folder.join("pool"),
        bytes_max: Some(bytes_max),
        disk_reserve: 0,
        is_given_up: false,
    });
    pool.expect("the pool opens")
}

pub async fn layers_made_while_others_go_keep_their_limits() {
    let folder = dead::folder(&InstanceId::random());
    let pool = open_pool(&folder, 1 << 30);
    assert_eq!(pool.disk_limit(), DiskLimit::Enforced);
    let make = || pool.make(1 << 20).expect("a layer is made");
    let churn = || {
        let pairs = (0..100).map(|_| (make(), make()));
        let kept = pairs.map(|(kept, gone)| {
            pool.retire_quiet(&gone);
            kept
        });
        kept.collect()
    };
    let kept: Vec<_> = std::thread::scope(|scope| {
        let maker = scope.spawn(churn);
        while !maker.is_finished() {
            pool.empty_trash(&mut || {}, None)
                .expect("layers are deleted");
            pool.tidy().expect("their accounting is freed");
        }
        maker.join().expect("layers are made")
    });
    for layer in &kept {
        let file = pool.writable_dir().join(layer.name()).join("upper/fill");
        let full = std::fs::write(file, vec![1; 2 << 20]);
        assert!(full.is_err(), "{layer:?} has its limit");
        assert!(pool.used_bytes(layer).expect("it is counted") < 2 << 20);
    }
    pool.retire_all().expect("layers are retired");
    pool.empty_trash(&mut || {}, None)
        .expect("layers are deleted");
    pool.close(true).expect("the pool closes");
    std::fs::remove_dir_all(folder).expect("the folder goes");
}

pub async fn a_used_layer_comes_back_empty_and_one_that_holds_much_is_deleted() {
    let folder = dead::folder(&InstanceId::random());
    let pool = open_pool(&folder, 1 << 30);
    let place = |layer: &Layer| pool.writable_dir().join(layer.name());
    let upper = |layer: &Layer| place(layer).join("upper");
    let make = || pool.make(64 << 20).expect("a layer is made");
    let outside = folder.join("outside");
    std::fs::write(&outside, "untouched").unwrap();

    let small = make();
    std::fs::create_dir_all(upper(&small).join("a/b")).unwrap();
    std::fs::write(upper(&small).join("a/b/secret"), vec![b'x'; 512 << 10]).unwrap();
    std::os::unix::fs::symlink(&outside, upper(&small).join("link")).unwrap();
    std::fs::write(place(&small).join("work/left"), "over").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    std::fs::set_permissions(upper(&small), mode).unwrap();
    std::os::unix::fs::chown(upper(&small), Some(1234), Some(1234)).unwrap();

    let many = make();
    for number in 0..300 {
        std::fs::write(upper(&many).join(number.to_string()), "").unwrap();
    }
    let large = make();
    let file = std::fs::File::create(upper(&large).join("file")).unwrap();
    (&file).write_all(&vec![1; 8 << 20]).unwrap();
    drop(file);

    let unsure = make();
    for layer in [&small, &many, &large] {
        pool.retire_quiet(layer);
    }
    pool.retire(&unsure);
    let new = Mutex::new(Vec::new());
    let again = |wanted| {
        let again = Again {
            bytes: 2 << 20,
            wanted: &|| wanted,
            put: &|layer| new.lock().unwrap().push(layer),
        };
        let emptied = pool.empty_trash(&mut || {}, Some(&again));
        emptied.expect("layers are deleted or made new");
        assert_eq!(pool.waiting().unwrap(), 0);
    };
    again(true);
    let layer = new
        .lock()
        .unwrap()
        .pop()
        .expect("the small one is made new");
    assert!(new.lock().unwrap().is_empty(), "and no other");
    assert!(layer != small && !pool.contains(&small));
    let names = |path: PathBuf| {
        let entries = std::fs::read_dir(path).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let inner = ["upper".to_owned(), "work".to_owned()];
    assert_eq!(names(place(&layer)), inner.into());
    assert!(names(upper(&layer)).is_empty() && names(place(&layer).join("work")).is_empty());
    let fresh = make();
    let of = |layer| {
        let found = std::fs::metadata(upper(layer)).unwrap();
        (found.mode(), found.uid(), found.gid())
    };
    assert_eq!(of(&layer), of(&fresh));
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "untouched");
    let full = std::fs::write(upper(&layer).join("fill"), vec![1; 4 << 20]);
    assert!(full.is_err(), "it has its new limit");

    pool.retire_quiet(&fresh);
    again(false);
    assert!(new.lock().unwrap().is_empty(), "nobody wants it");
    pool.retire_all().expect("layers are retired");
    pool.empty_trash(&mut || {}, None)
        .expect("layers are deleted");
    pool.close(true).expect("the pool closes");
    std::fs::remove_dir_all(folder).expect("the folder goes");
}

pub async fn a_sandbox_finds_nothing_of_who_had_its_layer_before() {
    let world = World::new().await;
    let mut used_again = 0;
    for _ in 0..30 {
        let record = world.create_as(world.spec()).await;
        let layer = record.facts["layer"].as_str().expect("it has a layer");
        let upper = format!("/run/casemate/{}/pool/w/{layer}/upper", world.instance);
        // The first file of a layer that nobody had before has the number 257.
        used_again += usize::from(std::fs::metadata(upper).unwrap().ino() > 258);
        let look = "ls -a / /etc; stat -c '%a %u %g' /";
        let found = world.ok(&record.sandbox, look).await;
        assert!(
            found.contains("755 0 0") && !found.contains("left"),
            "{found}"
        );
        let mess = "echo x > /left; echo x > /etc/left; chmod 777 /; chown 7:7 /";
        world.ok(&record.sandbox, mess).await;
        world.runtime.stop(&record.sandbox).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(used_again > 0, "none was used again");
    world.purge().await;
}

pub async fn blocks_behind_the_pool_s_end_are_given_back_at_the_next_start() {
    let folder = dead::folder(&InstanceId::random());
    let open = || open_pool(&folder, 4 << 30);
    let image = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open(folder.join("node/pool.img"))
    };
    let blocks = || {
        image()
            .and_then(|image| image.metadata())
            .expect("it is there")
            .blocks()
    };
    let pool = open();
    let whole = blocks();
    let kept = pool.writable_dir().join("kept");
    std::fs::write(&kept, vec![7; 8 << 20]).expect("there is room");
    // As whoever was killed before he gave back, or had only begun to grow: its mount stays.
    let leave_some = || {
        let (from, bytes) = (3 << 30, 512 << 20);
        let image = image().expect("the image opens");
        fallocate(&image, FallocateFlags::KEEP_SIZE, from, bytes).expect("the disk has room");
        assert!(blocks() > whole);
    };
    leave_some();
    drop(pool);
    let pool = open();
    assert_eq!(blocks(), whole, "a pool that was still mounted");
    leave_some();
    pool.close(false).expect("the pool closes");
    let pool = open();
    assert_eq!(blocks(), whole, "a pool that was not mounted");
    assert_eq!(std::fs::read(kept).expect("it is read"), vec![7; 8 << 20]);
    pool.close(true).expect("the pool closes");
    std::fs::remove_dir_all(folder).expect("the folder goes");
}

pub async fn programs_find_their_limits_in_control_groups() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let version_2_alone = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let (read, folders, write) = match version_2_alone {
        true => (
            "memory.max memory.swap.max cpu.max pids.max",
            vec![""],
            "memory.max",
        ),
        false => (
            "memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us",
            vec!["cpu", "cpuacct", "cpuset", "memory"],
            "memory/memory.limit_in_bytes",
        ),
    };
    let limits = match version_2_alone {
        true => format!("{}\n0\n100000 100000\n64", 128 << 20),
        false => format!("{}\n100000\n100000", 128 << 20),
    };
    let read = format!("cd /sys/fs/cgroup && cat {read}");
    assert_eq!(world.ok(&sandbox, &read).await, limits);
    // Its own groups are the top: runtimes look in the mount table for them.
    let mounts = "awk '/ - cgroup/ { print $4, $5 }' /proc/self/mountinfo";
    let mounts = world.ok(&sandbox, mounts).await;
    let tops: Vec<_> = mounts
        .lines()
        .flat_map(|line| line.strip_prefix("/ /sys/fs/cgroup"))
        .flat_map(|folder| folder.trim_start_matches('/').split(','))
        .collect();
    // Several may share a hierarchy, as `cpu,cpuacct` do under systemd.
    for folder in &folders {
        assert!(tops.contains(folder), "{folder}: {mounts}");
    }
    let below = "find /sys/fs/cgroup -mindepth 2 -type d";
    assert_eq!(world.ok(&sandbox, below).await, "");
    // And nothing of another sandbox is among its processes.
    let procs = "cat $(find /sys/fs/cgroup -name cgroup.procs) | sort -un | head -1";
    assert_eq!(world.ok(&sandbox, procs).await, "1");
    for attempt in [
        &format!("echo 1 > /sys/fs/cgroup/{write}"),
        "mkdir $(dirname $(find /sys/fs/cgroup -name cgroup.procs | head -1))/below",
        "mount -o remount,rw /sys/fs/cgroup",
        "umount /sys/fs/cgroup",
    ] {
        let (output, code) = world.sh(&sandbox, attempt).await;
        assert!(code != 0, "{attempt}: {output}");
    }
    world.purge().await;
}

pub async fn what_a_sandbox_consumes_is_counted() {
    let world = World::new().await;
    let (sandbox, other) = (world.create().await, world.create().await);
    let read = async || {
        let seen = world.runtime.look().await.unwrap();
        let of = |id: &_| seen.iter().find(|one| one.sandbox == *id).unwrap();
        (of(&sandbox).consumption, of(&other).consumption)
    };
    let (before, _) = read().await;
    assert!(before.memory_used_bytes > 0 && before.memory_used_bytes < 128 << 20);
    let busy = "timeout 1 sh -c 'while :; do :; done'; \
                dd if=/dev/urandom of=/some bs=1M count=20 2>/dev/null; sync";
    world.sh(&sandbox, busy).await;
    let begun = Instant::now();
    let (after, beside) = loop {
        let (after, beside) = read().await;
        if after.disk_used_bytes >= Some(20 << 20) {
            break (after, beside);
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{after:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let spent = after.cpu_time - before.cpu_time;
    assert!(spent >= Duration::from_millis(300), "{spent:?}");
    assert!(after.memory_cache_bytes >= 15 << 20, "{after:?}");
    assert!(
        beside.cpu_time < spent && beside.disk_used_bytes < Some(1 << 20),
        "{beside:?}"
    );
    world.purge().await;
}

pub async fn output_of_the_first_process_fills_nothing() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let (output, code) = world
        .sh(&sandbox, "dd if=/dev/zero of=/proc/1/fd/1 bs=64k count=4")
        .await;
    assert!(code != 0, "{output}");
    world.ok(&sandbox, "true").await;
    world.purge().await;
}

pub async fn without_a_pool_each_file_is_bounded_and_the_ability_says_so() {
    let instance = InstanceId::random();
    let folder = dead::folder(&instance);
    let mut config = world::config(folder, instance);
    // Too small for a file system, as on a full disk.
    config.pool_bytes_max = Some(1);
    let world = World::open_config(config).await;
    assert_eq!(world.runtime.capabilities().disk_limit, DiskLimit::Advisory);
    world.runtime.sweep(&Default::default()).await.unwrap();
    let sandbox = world.create().await;
    let write = "dd if=/dev/zero of=/fill bs=1M count=200 2>&1; wc -c < /fill";
    let (output, _) = world.sh(&sandbox, write).await;
    assert_eq!(
        output.lines().last().unwrap_or(""),
        (64 << 20).to_string(),
        "{output}"
    );
    assert!(world.runtime.disk_used_bytes(&sandbox).unwrap().unwrap() >= 64 << 20);
    let state = host::state(&world.instance);
    assert!(state.loops.is_empty() && !state.mounts.iter().any(|mount| mount.contains("btrfs")));
    world.purge().await;
}
