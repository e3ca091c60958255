//! Making, adopting, sweeping, ending.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use casemate_net::{NetError, NetPool, NetSlot};
use casemate_types::network::CompiledPolicy;

use crate::world::{self, Outcome, World, ask_tcp, inside, ip, output, snapshot, tcp};

fn nothing_allowed() -> CompiledPolicy {
    CompiledPolicy {
        deny: vec!["0.0.0.0/0".parse().unwrap()],
        ..CompiledPolicy::default()
    }
}

/// Waits for the kernel to have taken the links away.
#[track_caller]
fn wait_for_links(prefix: &str, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let found = output("ip", &["-o", "link"]).matches(prefix).count();
        if found == count {
            return;
        }
        assert!(Instant::now() < deadline, "{found} links, expected {count}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn purge_leaves_nothing() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let before = snapshot();
    let pool = world.pool();
    let mut slots = pool.slots_create(0..5).unwrap();
    pool.policy_apply(2, &nothing_allowed()).unwrap();
    assert!(tcp(&slots[0], "8.8.8.8").is_reached());
    let held = slots.split_off(3);
    pool.retire(slots).unwrap();
    // Slots that are still held lose their network.
    pool.purge().unwrap();
    assert_eq!(tcp(&held[0], "8.8.8.8"), Outcome::Refused);
    wait_for_links("cmtestaa-", 0);
    assert_eq!(snapshot(), before);
    pool.purge().expect("purging twice is harmless");
    assert_eq!(snapshot(), before);
}

#[test]
fn a_crash_changes_nothing_for_what_runs() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let mut slots = pool.slots_create(0..4).unwrap();
    pool.policy_apply(0, &nothing_allowed()).unwrap();
    pool.policy_apply(3, &nothing_allowed()).unwrap();
    let mut stream = inside(&slots[1].netns, || {
        TcpStream::connect(("8.8.8.8", world::PORT)).unwrap()
    });
    ask_tcp(&mut stream).unwrap();
    drop(pool);

    let pool = world.pool();
    ask_tcp(&mut stream).expect("a connection outlives us");
    assert_eq!(
        tcp(&slots[0], "8.8.8.8"),
        Outcome::Refused,
        "the policy outlives us"
    );
    let refused = pool.adopt(2, slots[1].netns.try_clone().unwrap());
    assert!(matches!(
        refused,
        Err(NetError::NotThisSlot { index: 2, .. })
    ));
    let second = pool.adopt(1, slots.remove(1).netns).unwrap();
    let first = pool.adopt(0, slots.remove(0).netns).unwrap();
    // Two that nobody keeps: one held by somebody, one with a policy.
    pool.sweep(&BTreeSet::from([0, 1])).unwrap();
    assert_eq!(tcp(&slots[0], "8.8.8.8"), Outcome::Refused, "swept");
    wait_for_links("cmtestaa-", 2);
    assert!(tcp(&second, "8.8.8.8").is_reached());
    assert_eq!(tcp(&first, "8.8.8.8"), Outcome::Refused);
    drop(slots);
    let reborn = pool.slot_create(3).unwrap();
    assert!(
        tcp(&reborn, "8.8.8.8").is_reached(),
        "a swept slot has no policy"
    );
    pool.policy_clear(0).unwrap();
    assert!(tcp(&first, "8.8.8.8").is_reached());
}

#[test]
fn slots_are_clean_and_used_again() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let started = Instant::now();
    let slots = pool.slots_create(0..128).unwrap();
    println!("128 slots in {:?}", started.elapsed());
    assert!(matches!(
        pool.slot_create(9),
        Err(NetError::SlotBusy { index: 9, .. })
    ));
    pool.policy_apply(9, &nothing_allowed()).unwrap();
    let started = Instant::now();
    pool.retire(slots).unwrap();
    println!("128 slots retired in {:?}", started.elapsed());
    let again = pool.slot_create(9).unwrap();
    println!("made again after {:?}", started.elapsed());
    assert!(
        tcp(&again, "8.8.8.8").is_reached(),
        "no policy is inherited"
    );
    let inside_view = inside(&again.netns, || {
        let sysctl = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        (
            output("ip", &["-o", "addr"]),
            output("ip", &["route"]),
            sysctl("ip_unprivileged_port_start"),
            sysctl("ping_group_range"),
        )
    });
    let (addresses, routes, ports, pings) = inside_view;
    assert_eq!(addresses.lines().count(), 3, "{addresses}");
    assert!(addresses.contains("inet 100.64.0.11/32"), "{addresses}");
    assert!(addresses.contains("inet6 ::1/128"), "{addresses}");
    assert_eq!(
        routes.trim(),
        "default via 100.64.0.1 dev eth0 proto static onlink"
    );
    assert_eq!(ports.trim(), "0");
    assert_eq!(pings.trim(), "0\t2147483647");
    let link = output("ip", &["-o", "link", "show", &again.host_link]);
    assert!(
        link.contains("mtu 1400"),
        "the way out carries no more: {link}"
    );
}

#[test]
fn a_policy_that_could_not_be_cleared_is_known_and_replaced() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slots = pool.slots_create(0..2).unwrap();
    pool.policy_apply(0, &nothing_allowed()).unwrap();
    // Another program takes our table away: what is cleared now is nowhere, and comes back with it.
    output("nft", &["flush", "ruleset"]);
    pool.retire(slots).unwrap_err();
    assert!(pool.has_policy(0) && !pool.has_policy(1));
    assert!(pool.heal().unwrap());
    let again = pool.slot_create(0).unwrap();
    assert!(
        !tcp(&again, "8.8.8.8").is_reached(),
        "the control: it is back"
    );
    pool.policy_apply(0, &CompiledPolicy::open()).unwrap();
    assert!(!pool.has_policy(0));
    assert!(tcp(&again, "8.8.8.8").is_reached());
}

#[test]
fn one_after_the_other_is_quick_too() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let mut slots = Vec::new();
    let started = Instant::now();
    for index in 0..50 {
        slots.push(pool.slot_create(index).unwrap());
    }
    println!("50 single slots: {:?} each", started.elapsed() / 50);
    let started = Instant::now();
    for index in 0..50 {
        pool.policy_apply(index, &nothing_allowed()).unwrap();
    }
    println!("50 policies: {:?} each", started.elapsed() / 50);
}

#[test]
fn a_subnet_that_the_host_routes_is_refused() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    ip("route add 100.64.0.128/25 dev up0");
    let error = NetPool::open(world.config("testaa00", "100.64.0.0/24")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "slot subnet 100.64.0.0/24 overlaps the host's route 100.64.0.128/25 on up0"
    );
    ip("route del 100.64.0.128/25");
    // A default route in two halves is a way out, not a place.
    ip("route add 0.0.0.0/1 dev up0");
    NetPool::open(world.config("testaa00", "100.64.0.0/24")).unwrap();
    // Our own routes are no conflict.
    NetPool::open(world.config("testaa00", "100.64.0.0/24")).unwrap();
}

#[test]
fn forwarding_comes_back_when_the_last_instance_goes() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let forwarding = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    assert_eq!(forwarding().trim(), "0");
    let first = NetPool::open(world.config("testaa00", "100.64.0.0/24")).unwrap();
    let second = NetPool::open(world.config("testbb00", "100.64.1.0/24")).unwrap();
    first.purge().unwrap();
    assert_eq!(forwarding().trim(), "1");
    second.purge().unwrap();
    assert_eq!(forwarding().trim(), "0");
}

#[test]
fn forwarding_comes_back_after_a_kill_while_it_was_noted() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let forwarding = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let record = |instance| {
        world
            .config(instance, "100.64.0.0/24")
            .state_dir
            .join("ip_forward")
    };
    let leave = |path: &std::path::Path| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    };
    // Made and not written: by an earlier version in its place, by this one beside it.
    for path in [record("testaa00"), record("testaa00").with_extension("tmp")] {
        leave(&path);
        let pool = NetPool::open(world.config("testaa00", "100.64.0.0/24")).unwrap();
        assert_eq!(forwarding().trim(), "1");
        pool.purge().unwrap();
        assert_eq!(forwarding().trim(), "0", "{path:?}");
    }
    // One that says nothing is not taken for what was before, and ends nobody's forwarding.
    leave(&record("testbb00"));
    let pool = NetPool::open(world.config("testaa00", "100.64.0.0/24")).unwrap();
    let other = NetPool::open(world.config("testbb00", "100.64.1.0/24")).unwrap();
    pool.purge().unwrap();
    assert_eq!(forwarding().trim(), "1");
    other.purge().unwrap();
    assert_eq!(forwarding().trim(), "0");
}

#[test]
fn rules_that_another_program_flushed_come_back() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    pool.policy_apply(0, &nothing_allowed()).unwrap();
    assert!(!pool.heal().unwrap());
    output("nft", &["flush", "ruleset"]);
    assert!(tcp(&slot, "10.9.8.7").is_reached(), "control");
    assert!(pool.heal().unwrap());
    assert_eq!(tcp(&slot, "10.9.8.7"), Outcome::Refused);
    assert_eq!(tcp(&slot, "8.8.8.8"), Outcome::Refused);
}

#[test]
fn a_reused_slot_inherits_no_connection() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let server = inside(&world.outside, || {
        UdpSocket::bind((world::OUTSIDE, 9999)).unwrap()
    });
    server
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let bound = |slot: &NetSlot| {
        inside(&slot.netns, || {
            let socket = UdpSocket::bind(("0.0.0.0", 5000)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            socket
        })
    };
    let slot = pool.slot_create(0).unwrap();
    let socket = bound(&slot);
    socket
        .send_to(b"from the first", (world::OUTSIDE, 9999))
        .unwrap();
    let (_, first) = server.recv_from(&mut [0; 100]).unwrap();
    server.send_to(b"for the first", first).unwrap();
    socket
        .recv(&mut [0; 100])
        .expect("control: answers find their way");
    drop(socket);
    pool.retire(vec![slot]).unwrap();

    let reborn = pool.slot_create(0).unwrap();
    let socket = bound(&reborn);
    server.send_to(b"for the first", first).unwrap();
    socket
        .recv(&mut [0; 100])
        .expect_err("this was for the former user");

    // The same after a crash: nobody retired the slot.
    socket
        .send_to(b"from the second", (world::OUTSIDE, 9999))
        .unwrap();
    let (_, second) = server.recv_from(&mut [0; 100]).unwrap();
    drop((pool, socket, reborn));
    let pool = world.pool();
    let reborn = pool.slot_create(0).unwrap();
    let socket = bound(&reborn);
    server.send_to(b"for the second", second).unwrap();
    socket
        .recv(&mut [0; 100])
        .expect_err("this was for the former user");
}

#[test]
fn forgetting_connections_is_quick() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slots = pool.slots_create(0..2).unwrap();
    for slot in &slots {
        inside(&slot.netns, || {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            for port in 10_000..11_000 {
                let _ = socket.send_to(b"x", ("8.8.8.8", port));
            }
        });
    }
    let tracked = || fs::read_to_string("/proc/net/stat/nf_conntrack").unwrap();
    println!("{}", tracked().lines().nth(1).unwrap_or_default());
    pool.retire(slots).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    let _again = pool.slots_create(0..2).unwrap();
    println!(
        "two slots with 1000 connections each made again in {:?}",
        started.elapsed()
    );
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}
