//! Kept files, by what sandboxes find that begin with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_failpoint::{PLAN, Plan, Point};
use casemate_linux::btrfs;
use casemate_namespaces::NamespacesRuntime;
use casemate_runtime::{
    AdoptError, CreateError, CreateSpec, DiskLimit, Runtime, RuntimeRecord, SnapshotError,
    Snapshots, conformance,
};
use casemate_types::{InstanceId, SandboxId, SnapshotId, chain};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use crate::world::{self, AGENT_VARIABLE, World, agent};
use crate::{dead, host};

/// A world whose layers are plain folders.
pub async fn plain_world() -> World {
    let instance = InstanceId::random();
    let mut config = world::config(dead::folder(&instance), instance);
    // Too small for a file system, as on a full disk.
    config.pool_bytes_max = Some(1);
    let world = World::open_config(config).await;
    assert_eq!(world.runtime.capabilities().disk_limit, DiskLimit::Advisory);
    world.runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
    world
}

/// The folder of writable layers.
fn layers(world: &World) -> PathBuf {
    let pool = format!("/run/casemate/{}/pool/w", world.instance);
    match world.runtime.capabilities().disk_limit {
        DiskLimit::Enforced => pool.into(),
        DiskLimit::Advisory => world.folder.join("node/writable/w"),
    }
}

fn upper(world: &World, record: &RuntimeRecord) -> PathBuf {
    let layer = record.facts["layer"].as_str().expect("it has a layer");
    layers(world).join(layer).join("upper")
}

pub fn spec_with(world: &World, snapshot: &SnapshotId) -> CreateSpec {
    CreateSpec {
        files: Some(snapshot.clone()),
        ..world.spec()
    }
}

async fn begin_with(world: &World, snapshot: &SnapshotId) -> RuntimeRecord {
    world.create_as(spec_with(world, snapshot)).await
}

pub async fn take(world: &World, sandbox: &SandboxId) -> SnapshotId {
    let snapshot = SnapshotId::random();
    let taken = world.runtime.take(sandbox, &snapshot).await;
    taken.unwrap_or_else(|error| panic!("it is kept: {}", casemate_types::chain(&error)));
    snapshot
}

async fn suspend(world: &World, sandbox: &SandboxId) -> SnapshotId {
    let snapshot = SnapshotId::random();
    let kept = world.runtime.suspend(sandbox, &snapshot).await;
    kept.unwrap_or_else(|error| panic!("it is kept: {}", casemate_types::chain(&error)));
    snapshot
}

pub async fn the_contract_of_the_port_holds() {
    let world = World::new().await;
    conformance::all_of_snapshots(&*world.runtime, &|| world.spec()).await;
    world.purge().await;
    let world = plain_world().await;
    conformance::all(&*world.runtime, &|| world.spec()).await;
    conformance::all_of_snapshots(&*world.runtime, &|| world.spec()).await;
    world.purge().await;
}

/// Changes a layer below in every way, and makes every kind of file.
pub const WRITE: &str = "set -e
    mkdir -p /data/deep/er && cd /data
    echo text > file && chown 1000:1000 file && chmod 4751 file && ln file deep/hard
    ln -s ../nowhere link && mkfifo pipe && chown -h 7:8 link
    head -c 3000000 /dev/urandom > random
    dd if=/dev/urandom of=sparse bs=4k count=3 seek=1000 2> /dev/null
    truncate -s 20000000 sparse
    mkdir -m 1771 shared && chown 3:4 shared && touch -d '2001-02-03 04:05:06' shared
    touch 'odd
name'
    rm /base/gone /base/folder/gone
    rm -r /base/opaque && mkdir /base/opaque && echo new > /base/opaque/new
    mv /base/moved /base/renamed && echo more > /base/renamed/more
    touch -d '2001-02-03 04:05:06' deep";

/// All that is told of these files.
const LIST: &str = "cd / && find data base -exec stat -c '%n %f %u %g %h %s %Y %T' {} \\; | sort;
    find data base -type f -exec md5sum {} \\; | sort;
    stat -c '%b' data/sparse | awk '{ print ($1 < 1000 ? \"sparse\" : \"filled\") }'";

/// A layer with something to change in it.
pub fn base(world: &World) -> PathBuf {
    let files = [
        ("base/gone", "gone"),
        ("base/folder/gone", "gone"),
        ("base/folder/stays", "stays"),
        ("base/opaque/old", "old"),
        ("base/moved/file", "moved"),
    ];
    world.layer("files", &files)
}

pub fn over(base: &Path, mut spec: CreateSpec) -> CreateSpec {
    spec.lowers.insert(0, base.to_owned());
    spec
}

/// A file capability, as `setcap cap_net_raw+ep` writes it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

async fn everything_is_there(world: &World) {
    let base = base(world);
    let record = world.create_as(over(&base, world.spec())).await;
    let one = &record.sandbox;
    world.ok(one, WRITE).await;
    let data = upper(world, &record).join("data");
    let set = |name: &str, value: &[u8]| {
        lsetxattr(data.join("file"), name, value, XattrFlags::empty()).expect("attributes are set");
    };
    set("user.note", b"kept");
    set("security.capability", &CAPABILITY);
    // Written to a mapping, and by nobody to disk.
    let map = "/proc/1/exe map /data/mapped > /dev/null 2>&1 & \
               while ! grep -q mapped /data/mapped; do sleep 0.05; done";
    world.ok(one, map).await;
    let listed = world.ok(one, LIST).await;
    assert!(
        listed.contains("sparse\n") || listed.ends_with("sparse"),
        "{listed}"
    );
    assert!(
        listed.contains("base/renamed/file") && listed.contains("data/mapped"),
        "{listed}"
    );
    let taken = take(world, one).await;
    // What it does afterwards is not in it.
    world
        .ok(
            one,
            "echo after > /data/after; echo after > /data/file; rm -r /data/deep /base",
        )
        .await;
    let mut exits = world.runtime.exits();
    let suspended = suspend(world, one).await;
    assert!(exits.try_recv().is_err());
    assert!(host::has_ended(world.first_process(one)));
    let check = async |snapshot: &SnapshotId| {
        let record = world
            .create_as(over(&base, spec_with(world, snapshot)))
            .await;
        let again = &record.sandbox;
        assert_eq!(world.ok(again, LIST).await, listed);
        let look = "head -c 7 /data/mapped; ls /base/opaque /base/folder; test ! -e /base/gone";
        assert_eq!(
            world.ok(again, look).await,
            "mapped\n/base/folder:\nstays\n\n/base/opaque:\nnew"
        );
        let file = upper(world, &record).join("data/file");
        assert_eq!(attribute(&file, "user.note").as_deref(), Some(&b"kept"[..]));
        assert_eq!(
            attribute(&file, "security.capability").as_deref(),
            Some(&CAPABILITY[..])
        );
        record
    };
    // Two from one see nothing of each other, nor change it.
    let (first, second) = (check(&taken).await.sandbox, check(&taken).await.sandbox);
    world
        .ok(&first, "rm -r /data /base; echo first > /first")
        .await;
    world
        .ok(
            &second,
            "test -e /data/file && test ! -e /first && echo second > /data/file",
        )
        .await;
    world.ok(&first, "test ! -e /data").await;
    world.runtime.stop(&first).await.expect("it stops");
    world.runtime.stop(&second).await.expect("it stops");
    let third = check(&taken).await.sandbox;
    // One that began with a snapshot is kept as well.
    world.ok(&third, "echo third > /data/third").await;
    let again = suspend(world, &third).await;
    world.runtime.remove(&taken).await.expect("it is removed");
    let fourth = world
        .create_as(over(&base, spec_with(world, &again)))
        .await
        .sandbox;
    world
        .ok(&fourth, "cat /data/third /data/random > /dev/null")
        .await;
    let late = world
        .create_as(over(&base, spec_with(world, &suspended)))
        .await
        .sandbox;
    let look = "cat /data/after /data/file; test ! -e /base && test ! -e /data/deep";
    assert_eq!(world.ok(&late, look).await, "after\nafter");
    world
        .runtime
        .remove(&suspended)
        .await
        .expect("it is removed");
    world
        .ok(&late, "cat /data/random /data/after > /dev/null")
        .await;
}

pub async fn everything_a_sandbox_wrote_is_in_it_and_nothing_later() {
    let world = World::new().await;
    everything_is_there(&world).await;
    world.purge().await;
}

pub async fn plain_folders_do_as_well() {
    let world = plain_world().await;
    everything_is_there(&world).await;
    // Deeper than a path can name.
    let deep = world.create().await;
    let dig = "cd / && mkdir d && echo found > d/it && i=0; while [ $i -lt 42 ]; do \
               mkdir -p n/$F && mv d n/$F/d && mv n d || exit 1; i=$((i+1)); done";
    let folders = format!("F=$(printf 'a/%.0s' $(seq 50)); {dig}");
    world.ok(&deep, &folders).await;
    let snapshot = take(&world, &deep).await;
    let again = begin_with(&world, &snapshot).await.sandbox;
    let look = "cd / && F=$(printf 'a/%.0s' $(seq 50)); i=0; while [ $i -lt 42 ]; do \
                mv d/$F/d n && rm -r d && mv n d || exit 1; i=$((i+1)); done; cat d/it";
    assert_eq!(world.ok(&again, look).await, "found");
    world.purge().await;
}

/// Of 64 MiB.
pub async fn a_disk_limit_counts_what_a_sandbox_began_with() {
    let world = World::new().await;
    let one = world.create().await;
    let fill = |mib: u32| {
        format!(
            "dd if=/dev/urandom of=/more bs=1M count={mib} conv=fsync 2> /dev/null; \
                 s=$?; sync; stat -c %s /more; exit $s"
        )
    };
    world
        .ok(&one, "head -c 40000000 /dev/urandom > /begun; sync")
        .await;
    let snapshot = suspend(&world, &one).await;
    let kept = world.runtime.list().await.expect("it is listed");
    let bytes = kept[&snapshot].expect("it is counted");
    assert!((40_000_000..44_000_000).contains(&bytes), "{bytes}");
    let two = begin_with(&world, &snapshot).await.sandbox;
    let used = world.runtime.disk_used_bytes(&two).unwrap().unwrap();
    assert!((40_000_000..48_000_000).contains(&used), "{used}");
    let (said, code) = world.sh(&two, &fill(40)).await;
    let written: u64 = said.lines().last().unwrap_or("").parse().unwrap_or(0);
    assert!(code != 0 && written < 28 << 20, "{code}: {said}");
    world.ok(&two, "rm /more; sync").await;
    world.ok(&two, &fill(8)).await;
    // A second time, of the second's own; a limit of another size; and one that is full can be kept.
    let (_, code) = world.sh(&two, &fill(40)).await;
    assert_ne!(code, 0);
    let full = suspend(&world, &two).await;
    let mut spec = spec_with(&world, &full);
    spec.resources.disk_mib = 128;
    let three = world.create_as(spec).await.sandbox;
    world.ok(&three, "rm /more; sync").await;
    world.ok(&three, &fill(30)).await;
    let (said, code) = world.sh(&three, &fill(90)).await;
    assert_ne!(code, 0, "{said}");
    let four = begin_with(&world, &full).await.sandbox;
    world.ok(&four, "true").await;
    world.purge().await;
}

pub async fn kept_ones_survive_sweeps_and_starts() {
    for plain in [false, true] {
        let world = match plain {
            true => plain_world().await,
            false => World::new().await,
        };
        let (one, two) = (world.create().await, world.create().await);
        world.ok(&one, "echo one > /mark").await;
        world.ok(&two, "echo two > /mark").await;
        let kept = [suspend(&world, &one).await, take(&world, &two).await];
        world.runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
        world.runtime.teardown(false).await.expect("it ends");
        let (instance, folder) = (world.instance.clone(), world.folder.clone());
        drop(world);
        let mut config = world::config(folder, instance);
        if plain {
            config.pool_bytes_max = Some(1);
        }
        let world = World::open_config(config).await;
        // As a crash leaves copies: under names of an earlier process.
        let left = layers(&world).join("0123456789ab");
        if !plain {
            let folder = File::open(layers(&world)).expect("it is there");
            btrfs::subvolume_create(&folder, "0123456789ab").expect("it is made");
        }
        std::fs::create_dir_all(left.join("upper/half")).expect("it is made");
        world.runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
        assert!(!left.exists());
        let listed = world.runtime.list().await.expect("they are listed");
        let ids: BTreeSet<_> = listed.into_keys().collect();
        assert_eq!(ids, BTreeSet::from(kept.clone()));
        for (snapshot, mark) in kept.iter().zip(["one", "two"]) {
            let again = begin_with(&world, snapshot).await.sandbox;
            assert_eq!(world.ok(&again, "cat /mark").await, mark);
        }
        let space = world.runtime.space().await.expect("it is measured");
        assert_eq!(space.kept.len(), 2);
        world.purge().await;
    }
}

/// In a process of its own, which dies at an armed point: makes a sandbox and a snapshot of it.
pub async fn hold(folder: &str, instance: &str, what: &str) {
    casemate_failpoint::arm_from_environment().expect("it is armed");
    let instance = InstanceId::parse(instance).expect("an instance");
    let world = World::open(PathBuf::from(folder), instance, 4).await;
    let record = world.create_as(world.spec()).await;
    let sandbox = &record.sandbox;
    world
        .ok(
            sandbox,
            "echo whole > /mark; head -c 5000000 /dev/urandom > /more",
        )
        .await;
    println!("{}", serde_json::to_string(&record).expect("it is text"));
    let snapshot = SnapshotId::parse("cutoff").expect("an id");
    match what {
        "suspend" => world
            .runtime
            .suspend(sandbox, &snapshot)
            .await
            .expect("it is kept"),
        _ => drop(
            world
                .runtime
                .take(sandbox, &snapshot)
                .await
                .expect("it is kept"),
        ),
    }
    if what == "remove" {
        world
            .runtime
            .remove(&snapshot)
            .await
            .expect("it is removed");
    }
    unreachable!("it dies before");
}

pub async fn what_a_crash_cuts_off_happened_or_left_nothing() {
    let rounds = [
        ("take", Point::SnapshotFrozen, false),
        ("take", Point::SnapshotMade, false),
        ("take", Point::SnapshotKept, true),
        ("suspend", Point::SuspendKept, true),
        ("suspend", Point::SuspendStopped, true),
        ("remove", Point::SnapshotRemoving, false),
    ];
    for (what, point, is_kept) in rounds {
        let instance = InstanceId::random();
        let folder = dead::folder(&instance);
        let mut process = Command::new("/proc/self/exe")
            .args([
                "internal",
                "keep",
                folder.to_str().unwrap(),
                instance.as_str(),
                what,
            ])
            .env(AGENT_VARIABLE, agent())
            .env(PLAN, Plan::of([point], 1.0).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut records = lines.map(|line| line.expect("it speaks"));
        let record = records
            .find(|line| line.starts_with('{'))
            .expect("it made one");
        let record: RuntimeRecord = serde_json::from_str(&record).expect("a record");
        assert!(!process.wait().expect("it ends").success());
        let world = World::open_unswept(folder, instance, 2).await;
        let snapshot = SnapshotId::parse("cutoff").unwrap();
        let adopted = world.runtime.adopt(&record).await;
        let mut keep = BTreeSet::new();
        if what == "suspend" {
            assert!(
                matches!(adopted, Err(AdoptError::Gone { .. })),
                "{point}: {adopted:?}"
            );
            for _ in 0..2 {
                let salvaged = world.runtime.salvage(&record, &snapshot).await;
                assert!(salvaged.expect("it is salvaged"), "{point}");
            }
        } else {
            adopted.unwrap_or_else(|error| panic!("{point}: it runs on: {error}"));
            keep.insert(record.sandbox.clone());
        }
        world.runtime.sweep(&keep).await.expect("sweeps");
        // Copies have names of the same run. An entry would keep the pool from closing.
        let ours = record.facts["layer"].as_str().unwrap();
        let of_others: Vec<_> = std::fs::read_dir(layers(&world))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name[..8] == ours[..8] && name != ours)
            .collect();
        assert!(of_others.is_empty(), "{point}: {of_others:?}");
        let listed = world.runtime.list().await.expect("they are listed");
        assert_eq!(listed.contains_key(&snapshot), is_kept, "{point}");
        if !keep.is_empty() {
            // Whoever takes one over lets it go on.
            world.runtime.thaw(&record.sandbox).await.expect("it thaws");
            assert_eq!(world.ok(&record.sandbox, "cat /mark").await, "whole");
        }
        if is_kept {
            let again = begin_with(&world, &snapshot).await.sandbox;
            assert_eq!(world.ok(&again, "cat /mark").await, "whole", "{point}");
            assert_eq!(
                world.ok(&again, "stat -c %s /more").await,
                "5000000",
                "{point}"
            );
        }
        world.purge().await;
    }
}

/// As after a restart of the host: the pool and the records are there, and nothing runs.
pub async fn what_ran_when_the_host_went_is_salvaged_before_the_sweep() {
    let world = World::new().await;
    let (kept, lost) = (
        world.create_as(world.spec()).await,
        world.create_as(world.spec()).await,
    );
    world.ok(&kept.sandbox, "echo kept > /mark").await;
    world
        .runtime
        .freeze(&kept.sandbox)
        .await
        .expect("it freezes");
    let (instance, folder) = (world.instance.clone(), world.folder.clone());
    for record in [&kept, &lost] {
        // Not by the runtime, which would give its layer up.
        let group = host::group(record);
        let kill = |root: &str| {
            std::fs::write(
                format!("{root}/casemate-{instance}/{group}/cgroup.kill"),
                "1",
            )
        };
        if kill("/sys/fs/cgroup/unified").is_err() && kill("/sys/fs/cgroup").is_err() {
            let freezer = format!("/sys/fs/cgroup/freezer/casemate-{instance}/{group}");
            let pid = rustix::process::Pid::from_raw(host::first_process(record)).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            std::fs::write(format!("{freezer}/freezer.state"), "THAWED").expect("it thaws");
        }
        while !host::has_ended(host::first_process(record)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    drop(world);
    let rebooted = |record: &RuntimeRecord| {
        let mut record = record.clone();
        record.facts["boot_id"] = "another".into();
        record
    };
    let world = World::open_unswept(folder, instance, 2).await;
    let snapshot = SnapshotId::random();
    for record in [&kept, &lost].map(rebooted) {
        let adopted = world.runtime.adopt(&record).await;
        assert!(
            matches!(adopted, Err(AdoptError::Gone { .. })),
            "{adopted:?}"
        );
    }
    let salvaged = world.runtime.salvage(&rebooted(&kept), &snapshot).await;
    assert!(salvaged.expect("it is salvaged"));
    world.runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
    let gone = world
        .runtime
        .salvage(&rebooted(&lost), &SnapshotId::random())
        .await;
    assert!(!gone.expect("it is looked for"), "the sweep took it");
    let again = begin_with(&world, &snapshot).await.sandbox;
    assert_eq!(world.ok(&again, "cat /mark").await, "kept");
    world.purge().await;
}

/// A pool that cannot be mounted for a while is no empty one: what lies in it would be given up.
pub async fn an_image_that_cannot_be_reached_is_no_empty_pool() {
    let world = World::new().await;
    let sandbox = world.create().await;
    world.ok(&sandbox, "echo here > /mark").await;
    let kept = suspend(&world, &sandbox).await;
    world.runtime.teardown(false).await.expect("it ends");
    let (instance, folder) = (world.instance.clone(), world.folder.clone());
    drop(world);
    let (image, aside) = (folder.join("node/pool.img"), folder.join("aside"));
    let hide = || {
        std::fs::rename(&image, &aside).expect("it is moved");
        let other = File::create(&image).expect("another is made");
        other.set_len(512 << 20).expect("it has a size");
    };
    hide();
    let config = world::config(folder.clone(), instance.clone());
    let refused = NamespacesRuntime::open(config).await.map(drop);
    let error = chain(&refused.expect_err("it is refused")).to_string();
    assert!(
        error.contains("pool.img") && error.contains("mount"),
        "{error}"
    );
    assert!(!folder.join("node/writable").exists());
    std::fs::rename(&aside, &image).expect("it is back");
    let world = World::open(folder.clone(), instance.clone(), 2).await;
    let again = begin_with(&world, &kept).await.sandbox;
    assert_eq!(world.ok(&again, "cat /mark").await, "here");
    world.runtime.teardown(false).await.expect("it ends");
    drop(world);
    hide();
    let mut config = world::config(folder, instance);
    config.gives_pool_up = true;
    World::open_config(config).await.purge().await;
}

/// Nor is one that became possible a reason to leave folders that hold something.
pub async fn plain_folders_that_hold_something_are_not_left_for_an_image() {
    let world = plain_world().await;
    let sandbox = world.create().await;
    world.ok(&sandbox, "echo here > /mark").await;
    let kept = suspend(&world, &sandbox).await;
    let (instance, folder) = (world.instance.clone(), world.folder.clone());
    let again = async |world: World| {
        world.runtime.teardown(false).await.expect("it ends");
        drop(world);
        let world = World::open(folder.clone(), instance.clone(), 2).await;
        world.runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
        world
    };
    let world = again(world).await;
    assert_eq!(world.runtime.capabilities().disk_limit, DiskLimit::Advisory);
    let sandbox = begin_with(&world, &kept).await.sandbox;
    assert_eq!(world.ok(&sandbox, "cat /mark").await, "here");
    world.runtime.remove(&kept).await.expect("it is removed");
    let world = again(world).await;
    assert_eq!(world.runtime.capabilities().disk_limit, DiskLimit::Enforced);
    world.purge().await;
}

/// A new platform over the pool's image as it is on the disk at this moment.
fn image_now(world: &World) -> (PathBuf, InstanceId) {
    let instance = InstanceId::random();
    let folder = dead::folder(&instance);
    std::fs::create_dir(folder.join("node")).expect("it is made");
    let image = "node/pool.img";
    let copied = Command::new("cp")
        .args([world.folder.join(image), folder.join(image)])
        .status();
    assert!(copied.expect("cp runs").success());
    (folder, instance)
}

/// The image is looked at right after each answer, while the file system is mounted: what it only
/// has in memory is not there.
pub async fn what_is_acknowledged_survives_a_power_loss() {
    let world = World::new().await;
    let (one, two) = (world.create().await, world.create().await);
    // Until the stock is full and nothing is written any more.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let write = "head -c 3000000 /dev/urandom > /random; md5sum /random";
    let sums = [world.ok(&one, write).await, world.ok(&two, write).await];
    let taken = take(&world, &one).await;
    let first = image_now(&world);
    let suspended = suspend(&world, &two).await;
    let second = image_now(&world);
    world.runtime.remove(&taken).await.expect("it is removed");
    let third = image_now(&world);
    world.purge().await;
    let [one, two] = [(&taken, &sums[0]), (&suspended, &sums[1])];
    for ((folder, instance), kept) in [
        (first, vec![one]),
        (second, vec![one, two]),
        (third, vec![two]),
    ] {
        let world = World::open(folder, instance, 2).await;
        let listed = world.runtime.list().await.expect("they are listed");
        for (snapshot, _) in &kept {
            // What was removed may be there again.
            assert!(listed.contains_key(*snapshot));
        }
        for (snapshot, sum) in kept {
            let again = begin_with(&world, snapshot).await.sandbox;
            assert_eq!(&world.ok(&again, "md5sum /random").await, sum);
        }
        world.purge().await;
    }
}

/// Layers, and quota groups; what is in stock among them.
fn counts(world: &World) -> (usize, usize) {
    let root = format!("/run/casemate/{}/pool", world.instance);
    let folder = |name: &str| std::fs::read_dir(format!("{root}/{name}")).unwrap().count();
    let layers = ["w", "x", "kept"].map(folder).iter().sum();
    let root = File::open(root).expect("the pool is there");
    // Deleted layers are taken apart after it.
    rustix::fs::syncfs(&root).expect("it is written");
    let (mut groups, mut next) = (0, 0);
    loop {
        let some = btrfs::qgroups(&root, next).expect("groups are listed");
        let Some(last) = some.last() else {
            return (layers, groups);
        };
        next = last.id + 1;
        groups += some.len();
    }
}

pub async fn many_cycles_leave_nothing() {
    let world = World::new().await;
    let first = world.create().await;
    world
        .ok(&first, "head -c 2000000 /dev/urandom > /more")
        .await;
    let begun = counts(&world);
    let mut last = take(&world, &first).await;
    for number in 0..200 {
        let next = begin_with(&world, &last).await.sandbox;
        if number % 10 == 0 {
            world
                .ok(
                    &next,
                    "test -s /more && head -c 100000 /dev/urandom > /more.new",
                )
                .await;
        }
        let kept = take(&world, &next).await;
        world.runtime.stop(&next).await.expect("it stops");
        world.runtime.remove(&last).await.expect("it is removed");
        last = kept;
    }
    world.runtime.remove(&last).await.expect("it is removed");
    // The last waste, after which all is looked at.
    let used = world.create().await;
    world.runtime.stop(&used).await.expect("it stops");
    // More are in stock by then: those that were used come back.
    let stock = 2 * 4 + 32;
    let deadline = Instant::now() + Duration::from_secs(150);
    loop {
        let (layers, groups) = counts(&world);
        // The top has a group, too.
        if layers <= begun.0 + stock && groups <= layers + 1 {
            println!(
                "  {begun:?} layers and groups before, {:?} after",
                (layers, groups)
            );
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{begun:?}, then {:?}",
            (layers, groups)
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.ok(&first, "test -s /more").await;
    world.purge().await;
}

pub async fn a_refused_one_leaves_the_sandbox_as_it_was() {
    let world = World::new().await;
    let one = world.create().await;
    let snapshot = take(&world, &one).await;
    let again = world.runtime.suspend(&one, &snapshot).await;
    assert!(matches!(again, Err(SnapshotError::Exists(id)) if id == snapshot));
    world.ok(&one, "true").await;
    let long = world
        .runtime
        .take(&one, &SnapshotId::parse(&"x".repeat(64)).unwrap())
        .await;
    long.expect("a long name is no harm");
    let mut spec = world.spec();
    spec.files = Some(SnapshotId::random());
    let missing = world.runtime.create(spec).await;
    assert!(
        matches!(missing, Err(CreateError::Unsupported { .. })),
        "{missing:?}"
    );
    world.purge().await;
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let (min, p50, max) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("  {what}: min {min:?}, p50 {p50:?}, max {max:?}");
}

pub async fn how_long_it_takes() {
    if std::env::var_os("CASEMATE_TEST_SPEED").is_none() {
        println!("skipped: set CASEMATE_TEST_SPEED=1 for figures of snapshots");
        return;
    }
    let world = World::new().await;
    let mut times = BTreeMap::<&str, Vec<Duration>>::new();
    // What a removed snapshot held is counted until the file system took it apart.
    let mut spec = world.spec();
    spec.resources.disk_mib = 1024;
    let one = world.create_as(spec).await.sandbox;
    world.ok(&one, "head -c 20000000 /dev/urandom > /begun; for i in $(seq 300); do echo $i > /home/$i; done").await;
    let snapshot = take(&world, &one).await;
    for _ in 0..20 {
        world
            .ok(&one, "head -c 10000000 /dev/urandom > /dirty")
            .await;
        let id = SnapshotId::random();
        let begun = Instant::now();
        let taken = world.runtime.take(&one, &id).await.expect("it is kept");
        times
            .entry("take, 10 MB dirty")
            .or_default()
            .push(begun.elapsed());
        times
            .entry("stood still for it")
            .or_default()
            .push(taken.frozen);
        world.runtime.remove(&id).await.expect("it is removed");
        let begun = Instant::now();
        world.runtime.freeze(&one).await.expect("it freezes");
        times.entry("freeze").or_default().push(begun.elapsed());
        let begun = Instant::now();
        world.runtime.thaw(&one).await.expect("it thaws");
        times.entry("thaw").or_default().push(begun.elapsed());
    }
    // In turns: what else the machine does meanwhile falls on both.
    for number in 0..200 {
        let (what, spec) = match number % 2 {
            0 => ("create from the base", world.spec()),
            _ => ("create from a snapshot", spec_with(&world, &snapshot)),
        };
        let id = spec.sandbox.clone();
        let begun = Instant::now();
        world.create_as(spec).await;
        times.entry(what).or_default().push(begun.elapsed());
        if number % 4 < 3 {
            world.runtime.stop(&id).await.expect("it stops");
            continue;
        }
        let begun = Instant::now();
        let kept = suspend(&world, &id).await;
        times.entry("suspend").or_default().push(begun.elapsed());
        world.runtime.remove(&kept).await.expect("it is removed");
    }
    for (what, times) in &mut times {
        report(what, times);
    }
    let frozen = &times["stood still for it"];
    // Sorted by now. On a busy machine a few may take longer.
    assert!(
        frozen[frozen.len() / 2] < Duration::from_millis(50),
        "{frozen:?}"
    );
    world.purge().await;
}

/// As when sandboxes filled it: what can be kept is, what cannot is said, and all goes on.
pub async fn a_full_pool_is_said_and_harms_nobody() {
    let instance = InstanceId::random();
    let mut config = world::config(dead::folder(&instance), instance);
    config.pool_bytes_max = Some(512 << 20);
    let world = World::open_config(config).await;
    world.runtime.sweep(&BTreeSet::new()).await.expect("sweeps");
    let mut spec = world.spec();
    spec.resources.disk_mib = 4096;
    let one = world.create_as(spec).await.sandbox;
    world.ok(&one, "echo mark > /mark").await;
    let fill = "for size in 1M 16k; do dd if=/dev/zero of=/fill.$size bs=$size; done 2> /dev/null;
                for i in $(seq 200); do echo small > /small.$i; done 2> /dev/null; true";
    world.ok(&one, fill).await;
    let mut kept = Vec::new();
    for _ in 0..8 {
        let snapshot = SnapshotId::random();
        match world.runtime.take(&one, &snapshot).await {
            Ok(_) => kept.push(snapshot),
            Err(SnapshotError::Capacity(id)) => assert_eq!(id, snapshot),
            Err(other) => panic!("{}", casemate_types::chain(&other)),
        }
        assert_eq!(world.ok(&one, "cat /mark").await, "mark");
    }
    println!("  {} of 8 were kept", kept.len());
    let listed = world.runtime.list().await.expect("they are listed");
    assert!(listed.keys().eq(kept.iter().collect::<BTreeSet<_>>()));
    let last = SnapshotId::random();
    match world.runtime.suspend(&one, &last).await {
        Ok(()) => {}
        Err(SnapshotError::Capacity(_)) => {
            println!("  and it could not be suspended");
            // As it was, until there is room.
            world
                .ok(&one, "test $(cat /mark) = mark && rm /fill.*")
                .await;
            for snapshot in &kept {
                world.runtime.remove(snapshot).await.expect("it is removed");
            }
            let deadline = Instant::now() + Duration::from_secs(60);
            while let Err(error) = world.runtime.suspend(&one, &last).await {
                assert!(Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Err(other) => panic!("{}", casemate_types::chain(&other)),
    }
    let mut spec = spec_with(&world, &last);
    spec.resources.disk_mib = 4096;
    match world.runtime.create(spec).await {
        Ok(record) => assert_eq!(world.ok(&record.sandbox, "cat /mark").await, "mark"),
        Err(CreateError::Capacity { .. }) => println!("  and one more was too much"),
        // Its agent finds no room for its own files.
        Err(CreateError::Agent { output, .. }) => println!("  and one more had no room: {output}"),
        Err(other) => panic!("{}", casemate_types::chain(&other)),
    }
    world.purge().await;
}
