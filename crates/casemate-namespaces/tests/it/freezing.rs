//! Sandboxes that are held where they are, by what their programs do meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use casemate_runtime::{Runtime, RuntimeError};
use casemate_types::SandboxId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::adoption::killed;
use crate::host;
use crate::world::World;

/// Enough for a kernel on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts for ever, in a file that the host can read while nobody inside answers.
const COUNT: &str = "(i=0; while :; do i=$((i+1)); echo $i > /tmp/count.new; \
                     mv /tmp/count.new /tmp/count; sleep 0.01; done) > /dev/null 2>&1 & true";

fn count(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/root/tmp/count"));
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

async fn goes_on(pid: i32) {
    let (begun, before) = (Instant::now(), count(pid));
    while count(pid) <= before {
        assert!(begun.elapsed() < PATIENCE, "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stands_still(pid: i32) {
    let before = count(pid);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(count(pid), before, "it stands still");
}

async fn counting(world: &World) -> (SandboxId, i32) {
    let sandbox = world.create().await;
    let pid = world.first_process(&sandbox);
    world.ok(&sandbox, COUNT).await;
    let begun = Instant::now();
    while count(pid) == 0 {
        assert!(begun.elapsed() < PATIENCE, "it counts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (sandbox, pid)
}

pub async fn programs_stand_still_and_go_on() {
    let world = World::new().await;
    let (sandbox, pid) = counting(&world).await;
    goes_on(pid).await;
    world
        .ok(&sandbox, "head -c 30000000 /dev/zero > /home/cached")
        .await;
    let eat = "/proc/1/exe eat 20 /tmp/ate > /dev/null 2>&1 & \
               while ! test -e /tmp/ate; do sleep 0.05; done";
    world.ok(&sandbox, eat).await;
    for _ in 0..3 {
        let begun = Instant::now();
        let frozen = world.runtime.freeze(&sandbox).await.expect("it freezes");
        let took = begun.elapsed();
        // What programs hold, without what files do.
        let memory = frozen.memory_bytes >> 20;
        assert!((20..50).contains(&memory), "{memory} MiB");
        stands_still(pid).await;
        assert_eq!(world.runtime.log(&sandbox), "");
        assert_eq!(world.runtime.memory_kills(&sandbox), Some(0));
        let begun = Instant::now();
        world.runtime.thaw(&sandbox).await.expect("it thaws");
        println!(
            "  frozen after {took:?}, thawed after {:?}",
            begun.elapsed()
        );
        goes_on(pid).await;
    }
    let mut exits = world.runtime.exits();
    // One that ends by a hand from outside is heard of, frozen or not.
    world.runtime.freeze(&sandbox).await.expect("it freezes");
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    if !host::has_groups_of_version_1_alone() {
        let exit = tokio::time::timeout(PATIENCE, exits.recv()).await;
        assert_eq!(exit.expect("in time").expect("it is told").sandbox, sandbox);
    }
    world.runtime.stop(&sandbox).await.expect("it stops");
    world.purge().await;
}

pub async fn a_connection_held_over_it_answers_afterwards() {
    let world = World::new().await;
    let sandbox = world.create().await;
    let open = world.runtime.dial(&sandbox, 49983).await.unwrap();
    let mut open = tokio::net::TcpStream::from_std(open).unwrap();
    open.write_all(b"echo ").await.unwrap();
    world.runtime.freeze(&sandbox).await.expect("it freezes");
    open.write_all(b"held").await.unwrap();
    open.shutdown().await.unwrap();
    // A new one queues.
    let new = world.runtime.dial(&sandbox, 49983).await.unwrap();
    let mut new = tokio::net::TcpStream::from_std(new).unwrap();
    new.write_all(b"echo new").await.unwrap();
    new.shutdown().await.unwrap();
    let mut answer = String::new();
    let early = open.read_to_string(&mut answer);
    let early = tokio::time::timeout(Duration::from_millis(300), early).await;
    assert!(early.is_err(), "nobody answers");
    world.runtime.thaw(&sandbox).await.expect("it thaws");
    let mut rest = String::new();
    open.read_to_string(&mut rest).await.unwrap();
    assert_eq!(answer + &rest, "held\nexit 0");
    let mut answer = String::new();
    new.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "new\nexit 0");
    world.purge().await;
}

pub async fn a_frozen_one_stops_and_its_slot_is_not_frozen() {
    let world = World::new().await;
    for _ in 0..3 {
        let (sandbox, pid) = counting(&world).await;
        world
            .ok(
                &sandbox,
                "for i in 1 2 3 4 5; do sleep 1000 > /dev/null 2>&1 & done",
            )
            .await;
        world.runtime.freeze(&sandbox).await.expect("it freezes");
        let begun = Instant::now();
        world.runtime.stop(&sandbox).await.expect("it stops");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(host::has_ended(pid));
        let begun = Instant::now();
        while !host::busy_groups(&world.instance).is_empty() {
            assert!(begun.elapsed() < PATIENCE, "none is left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // More than there are in stock, and than were used.
    for _ in 0..8 {
        let (_, pid) = counting(&world).await;
        goes_on(pid).await;
    }
    world.purge().await;
}

pub async fn a_frozen_one_is_taken_over_as_it_is() {
    let held = killed();
    let [first, second] = [0, 1].map(|number| held.records[number].clone());
    let pids = [&first, &second].map(host::first_process);
    let world = World::open_unswept(held.folder.clone(), held.instance.clone(), 2).await;
    for record in [&first, &second] {
        world.runtime.adopt(record).await.expect("it is adopted");
        world
            .runtime
            .freeze(&record.sandbox)
            .await
            .expect("it freezes");
    }
    let (folder, instance) = (world.folder.clone(), world.instance.clone());
    drop(world);
    let again = World::open_unswept(folder, instance, 2).await;
    again.runtime.adopt(&first).await.expect("it is adopted");
    let keep = BTreeSet::from([first.sandbox.clone()]);
    again.runtime.sweep(&keep).await.expect("sweeps");
    assert!(host::has_ended(pids[1]), "the other one is gone");
    stands_still(pids[0]).await;
    let seen = again.runtime.look().await.expect("it is looked at");
    assert_eq!(seen.len(), 1);
    let fresh = again.create().await;
    again.ok(&fresh, "true").await;
    again.runtime.thaw(&first.sandbox).await.expect("it thaws");
    again.ok(&first.sandbox, "true").await;
    again
        .runtime
        .freeze(&first.sandbox)
        .await
        .expect("it freezes");
    again.purge().await;
}

pub async fn what_ends_meanwhile_keeps_nobody_waiting() {
    let world = World::new().await;
    let none = SandboxId::random();
    let gone = world.runtime.freeze(&none).await;
    assert!(matches!(gone, Err(RuntimeError::NotFound(id)) if id == none));
    // While it ends: whatever comes of it, it comes soon.
    let sandbox = world.create().await;
    let pid = world.first_process(&sandbox);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let begun = Instant::now();
    let _ = world.runtime.freeze(&sandbox).await;
    world.runtime.stop(&sandbox).await.expect("it stops");
    assert!(begun.elapsed() < Duration::from_secs(5));
    world.purge().await;
}
