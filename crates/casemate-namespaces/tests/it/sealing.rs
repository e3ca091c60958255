//! Layers made of kept files, by what sandboxes over them find.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use casemate_runtime::{CreateSpec, Runtime, SnapshotError, Snapshots};
use casemate_types::{LayerId, Portable, SnapshotId, chain};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::snapshots::{WRITE, base, over, plain_world, spec_with, take};
use crate::world::World;

fn layers_dir(world: &World) -> PathBuf {
    world.folder.join("node/layers")
}

async fn seal(world: &World, snapshot: &SnapshotId) -> (LayerId, u64) {
    let layer = LayerId::random();
    let bytes = seal_as(world, snapshot, &layer).await;
    (layer, bytes)
}

async fn seal_as(world: &World, snapshot: &SnapshotId, layer: &LayerId) -> u64 {
    let sealed = world.runtime.seal(snapshot, layer).await;
    sealed.unwrap_or_else(|error| panic!("it is sealed: {}", chain(&error)))
}

fn over_sealed(world: &World, layer: &LayerId, spec: CreateSpec) -> CreateSpec {
    over(&layers_dir(world).join(layer.as_str()), spec)
}

/// A program that whoever runs it can open raw sockets with.
const GRANT: &str = "cp /bin/busybox /data/grep && /proc/1/exe grant /data/grep";
const GRANTED: &str = "su user -c '/data/grep CapEff /proc/self/status'";

/// All that is told of files, but for what file systems count differently: folders.
const LIST: &str = "cd / && find data base -type d -exec stat -c '%n %f %u %g %Y' {} \\; | sort;
    find data base ! -type d -exec stat -c '%n %f %u %g %h %s %Y %T' {} \\; | sort;
    find data base -type f -exec md5sum {} \\; | sort; ls -a base base/*;
    stat -c '%b' data/sparse | awk '{ print ($1 < 1000 ? \"sparse\" : \"filled\") }'";

/// Files of one name each that share a number with another.
const SHARED_NUMBERS: &str = "mkdir -p /n; for i in $(seq 900); do echo > /n/$i; done;
    find / -xdev -type f -exec stat -c '%h %d:%i' {} + | grep '^1 ' | sort | uniq -d | wc -l";

/// What was packed on one machine and unpacked on another.
async fn carried(world: &World, from: Portable, to: &Portable) {
    let (theirs, ours) = UnixStream::pair().expect("a pair of sockets");
    let packing = world.runtime.pack(&from, theirs);
    let unpacking = world.runtime.unpack(to, ours);
    let (packed, unpacked) = tokio::join!(packing, unpacking);
    packed.unwrap_or_else(|error| panic!("it is packed: {}", chain(&error)));
    unpacked.unwrap_or_else(|error| panic!("it is unpacked: {}", chain(&error)));
}

async fn comes_back_the_same(
    world: &World,
    files: &Path,
    snapshot: &SnapshotId,
    layer: &LayerId,
    listed: &str,
) {
    let (kept, sealed) = (SnapshotId::random(), LayerId::random());
    let to = Portable::Snapshot(kept.clone());
    carried(world, Portable::Snapshot(snapshot.clone()), &to).await;
    let to = Portable::Layer(sealed.clone());
    carried(world, Portable::Layer(layer.clone()), &to).await;
    let with_files = over(files, spec_with(world, &kept));
    let over_layer = over_sealed(world, &sealed, over(files, world.spec()));
    for spec in [with_files, over_layer] {
        let one = world.create_as(spec).await.sandbox;
        assert_eq!(world.ok(&one, LIST).await, listed);
        world.runtime.stop(&one).await.expect("it stops");
    }
    world.runtime.remove(&kept).await.expect("it is removed");
    let removed = world.runtime.remove_layer(&sealed).await;
    removed.expect("it is removed");
}

async fn is_as_it_was(world: &World) {
    let files = base(world);
    let one = world.create_as(over(&files, world.spec())).await.sandbox;
    world.ok(&one, WRITE).await;
    world.ok(&one, GRANT).await;
    let listed = world.ok(&one, LIST).await;
    let granted = world.ok(&one, GRANTED).await;
    assert!(granted.ends_with("0000000000002000"), "{granted}");
    let first = take(world, &one).await;
    let (below, bytes) = seal(world, &first).await;
    assert!((3_000_000..9_000_000).contains(&bytes), "{bytes}");
    comes_back_the_same(world, &files, &first, &below, &listed).await;
    world.runtime.remove(&first).await.expect("it is removed");

    let over_both = |spec| over_sealed(world, &below, over(&files, spec));
    let two = world.create_as(over_both(world.spec())).await.sandbox;
    assert_eq!(world.ok(&two, LIST).await, listed);
    assert_eq!(world.ok(&two, GRANTED).await, granted);
    let linked = "test $(stat -c %i /data/file) = $(stat -c %i /data/deep/hard)";
    world.ok(&two, linked).await;
    assert_eq!(world.ok(&two, SHARED_NUMBERS).await, "0");

    // What changes a sealed layer in every way is kept, and sealed, as well.
    let change = "set -e; rm /data/random /data/deep/hard; mv /base/renamed /base/again
        rm -r /base/opaque && mkdir /base/opaque && echo newer > /base/opaque/newer
        echo more >> /data/file; mv /data/deep /base/deep; touch /data/grep
        rm /base/folder/stays; mv /data /away && mv /away /data; rm -r /home";
    world.ok(&two, change).await;
    let changed = world.ok(&two, LIST).await;
    assert_ne!(changed, listed);
    let second = take(world, &two).await;
    let begun = over_both(spec_with(world, &second));
    let three = world.create_as(begun).await.sandbox;
    assert_eq!(world.ok(&three, LIST).await, changed);
    assert_eq!(world.ok(&three, GRANTED).await, granted);
    assert_eq!(world.ok(&three, SHARED_NUMBERS).await, "0");
    let (top, _) = seal(world, &second).await;
    let over_all = over_sealed(world, &top, over_both(world.spec()));
    let four = world.create_as(over_all).await.sandbox;
    assert_eq!(world.ok(&four, LIST).await, changed);
    assert_eq!(world.ok(&four, GRANTED).await, granted);
    // It can be written to like any other.
    world
        .ok(
            &four,
            "rm -r /base /data && mkdir /data && ls -a /data | wc -l | grep -qx 2",
        )
        .await;

    // Whiteouts do not show where what they hid is not below.
    let alone = over_sealed(world, &below, world.spec());
    let alone = world.create_as(alone).await.sandbox;
    let look = "ls /base /base/folder /base/opaque";
    assert_eq!(
        world.ok(&alone, look).await,
        "/base:\nfolder\nopaque\nrenamed\n\n/base/folder:\n\n/base/opaque:\nnew"
    );
    let listed = world.runtime.layers().await.expect("they are listed");
    assert_eq!(listed, BTreeSet::from([below, top]));
}

pub async fn what_one_wrote_lies_below_others_as_it_was() {
    let world = World::new().await;
    is_as_it_was(&world).await;
    world.purge().await;
}

pub async fn plain_folders_are_sealed_as_well() {
    let world = plain_world().await;
    is_as_it_was(&world).await;
    world.purge().await;
}

/// A small disk in the place of layers.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(place: &Path) -> Self {
        let small = Some(c"size=60m");
        mount("casemate-it", place, "tmpfs", MountFlags::empty(), small).expect("it is mounted");
        Self(place.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).expect("it is mounted");
    }
}

pub async fn a_full_disk_is_said_and_nothing_is_left() {
    let world = World::new().await;
    let sandbox = world.create().await;
    world
        .ok(
            &sandbox,
            "mkdir /d && head -c 40000000 /dev/urandom > /d/all",
        )
        .await;
    let snapshot = take(&world, &sandbox).await;
    let layer = LayerId::random();
    let small = SmallDisk::at(&layers_dir(&world));
    let full = world.runtime.seal(&snapshot, &layer).await;
    assert!(
        matches!(&full, Err(SnapshotError::Capacity(id)) if *id == snapshot),
        "{full:?}"
    );
    let left = std::fs::read_dir(layers_dir(&world)).expect("it is listed");
    assert_eq!(left.count(), 0);
    drop(small);
    let sealed = world.runtime.seal(&snapshot, &layer).await;
    assert!(sealed.expect("there is room") >= 40_000_000);
    world.purge().await;
}

/// Some that would not fit together: each is whole, or nothing of it is there.
pub async fn several_share_a_disk_that_gets_full() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let fill = "mkdir /d && head -c 15000000 /dev/urandom > /d/all && echo whole > /mark";
    world.ok(&sandbox, fill).await;
    let snapshot = take(&world, &sandbox).await;
    let small = SmallDisk::at(&layers_dir(&world));
    let layers: [LayerId; 4] = std::array::from_fn(|_| LayerId::random());
    let [a, b, c, d] = layers
        .each_ref()
        .map(|layer| world.runtime.seal(&snapshot, layer));
    let sealed = <[_; 4]>::from(tokio::join!(a, b, c, d));
    let mut whole = BTreeSet::new();
    for (layer, sealed) in layers.iter().zip(sealed) {
        match sealed {
            Ok(_) => drop(whole.insert(layer.clone())),
            Err(SnapshotError::Capacity(_)) => {}
            Err(error) => panic!("{}", chain(&error)),
        }
    }
    assert!((1..layers.len()).contains(&whole.len()), "{whole:?}");
    assert_eq!(
        world.runtime.layers().await.expect("they are listed"),
        whole
    );
    let left = std::fs::read_dir(layers_dir(&world)).expect("it is listed");
    assert_eq!(left.count(), whole.len());
    drop(small);
    // As many as wish, where there is room; one goes while another is made.
    let [a, b, c, d] = layers
        .each_ref()
        .map(|layer| world.runtime.seal(&snapshot, layer));
    let gone = LayerId::random();
    seal_as(&world, &snapshot, &gone).await;
    let removed = world.runtime.remove_layer(&gone);
    let (a, b, c, d, removed) = tokio::join!(a, b, c, d, removed);
    removed.expect("it is removed");
    for (layer, sealed) in layers.iter().zip([a, b, c, d]) {
        assert!(sealed.expect("there is room") >= 15_000_000);
        let over_it = over_sealed(&world, layer, world.spec());
        let one = world.create_as(over_it).await.sandbox;
        assert_eq!(world.ok(&one, "cat /mark").await, "whole");
        world.runtime.stop(&one).await.expect("it stops");
    }
    let left = std::fs::read_dir(layers_dir(&world)).expect("it is listed");
    assert_eq!(left.count(), layers.len() + 1, "and the base");
    world.purge().await;
}

pub async fn what_a_crash_left_half_made_goes_with_the_next_start() {
    let world = World::new().await;
    let sandbox = world.create().await;
    world.ok(&sandbox, "echo whole > /mark").await;
    let snapshot = take(&world, &sandbox).await;
    let (whole, bytes) = seal(&world, &snapshot).await;
    world.runtime.teardown(false).await.expect("it ends");
    let (instance, folder, layers) = (
        world.instance.clone(),
        world.folder.clone(),
        layers_dir(&world),
    );
    drop(world);
    // Of a copy, of its links, of a removal, and of the deletion of one.
    let left = [
        "t-half.0123456789",
        "t-half.012345678a",
        "t-old.0123456789",
        "t-old.0123456789.7",
    ];
    for name in left {
        deepen(&layers.join(name));
    }
    // Whole, and of somebody who means harm to whoever takes it away.
    deepen(&layers.join("t-deep"));
    let world = World::open(folder, instance, 2).await;
    for name in left {
        assert!(!layers.join(name).exists(), "{name}");
    }
    let listed = world.runtime.layers().await.expect("they are listed");
    let deep = LayerId::parse("t-deep").unwrap();
    assert_eq!(listed, BTreeSet::from([whole.clone(), deep]));
    let again = world.runtime.seal(&snapshot, &whole).await;
    assert_eq!(again.expect("it is there"), bytes);
    let over_it = over_sealed(&world, &whole, world.spec());
    let sandbox = world.create_as(over_it).await.sandbox;
    assert_eq!(world.ok(&sandbox, "cat /mark").await, "whole");
    world.runtime.stop(&sandbox).await.expect("it stops");
    let removed = world.runtime.remove_layer(&whole).await;
    removed.expect("it is removed");
    let names = std::fs::read_dir(&layers).expect("it is listed");
    assert_eq!(names.count(), 2, "the base and the deep one");
    world.purge().await;
}

/// Deeper than a path can name.
fn deepen(top: &Path) {
    std::fs::create_dir(top).expect("it is made");
    let folder = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, top, folder, Mode::empty()).expect("it opens");
    for _ in 0..2500 {
        mkdirat(&at, "d", Mode::RWXU).expect("it is made");
        at = openat(&at, "d", folder, Mode::empty()).expect("it opens");
    }
}
