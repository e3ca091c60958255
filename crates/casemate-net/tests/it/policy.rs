//! Tenants' policies.

use std::net::TcpStream;

use casemate_net::NetPool;
use casemate_types::network::{CompiledPolicy, NetworkPolicy};

use crate::world::{self, Outcome, World, ask_tcp, inside, tcp, udp};

fn compiled(internet: Option<bool>, allow: &[&str], deny: &[&str]) -> CompiledPolicy {
    let list = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    NetworkPolicy {
        allow_internet_access: internet,
        allow_out: list(allow),
        deny_out: list(deny),
        dns_servers: None,
    }
    .compile()
    .unwrap()
}

#[test]
fn a_policy_holds_for_its_slot_only_and_is_replaced_whole() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slots = pool.slots_create(0..2).unwrap();
    let check = |policy: &CompiledPolicy, open: &[&str], closed: &[&str]| {
        pool.policy_apply(0, policy).unwrap();
        for target in open {
            assert!(
                tcp(&slots[0], target).is_reached(),
                "tcp to {target} under {policy:?}"
            );
            assert!(
                udp(&slots[0], target).is_reached(),
                "udp to {target} under {policy:?}"
            );
        }
        for target in closed {
            assert_eq!(
                tcp(&slots[0], target),
                Outcome::Refused,
                "{target} under {policy:?}"
            );
            assert!(
                !udp(&slots[0], target).is_reached(),
                "{target} under {policy:?}"
            );
        }
        assert!(
            tcp(&slots[1], "8.8.8.8").is_reached(),
            "the neighbour under {policy:?}"
        );
    };
    check(
        &compiled(Some(false), &[], &[]),
        &[],
        &["8.8.8.8", "1.1.1.1"],
    );
    check(
        &compiled(Some(false), &["8.8.8.8"], &[]),
        &["8.8.8.8"],
        &["1.1.1.1"],
    );
    check(
        &compiled(None, &[], &["8.0.0.0/8"]),
        &["1.1.1.1"],
        &["8.8.8.8"],
    );
    check(
        &compiled(None, &[], &["8.8.0.0/16"]),
        &["1.1.1.1"],
        &["8.8.8.8"],
    );
    check(
        &compiled(None, &["8.8.8.0/24"], &["0.0.0.0/0"]),
        &["8.8.8.8"],
        &["1.1.1.1"],
    );
    // No tenant opens what the platform closes.
    check(
        &compiled(None, &["10.0.0.0/8", "203.0.113.1"], &[]),
        &["8.8.8.8"],
        &["10.9.8.7", world::HOST],
    );
    check(
        &CompiledPolicy::open(),
        &["8.8.8.8", "1.1.1.1"],
        &["10.9.8.7"],
    );
    check(&compiled(Some(false), &[], &[]), &[], &["8.8.8.8"]);
    pool.policy_clear(0).unwrap();
    assert!(tcp(&slots[0], "8.8.8.8").is_reached());
}

#[test]
fn internet_off_closes_the_operators_ranges_too() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let mut config = world.config("testaa00", "100.64.0.0/24");
    config.allow_ranges = vec!["10.9.8.0/24".parse().unwrap()];
    let pool = NetPool::open(config).unwrap();
    let slot = pool.slot_create(0).unwrap();
    assert!(tcp(&slot, "10.9.8.7").is_reached());
    pool.policy_apply(0, &compiled(Some(false), &[], &[]))
        .unwrap();
    assert_eq!(tcp(&slot, "10.9.8.7"), Outcome::Refused);
}

#[test]
fn established_connections_obey_a_new_policy() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    let connect = |to: &'static str| {
        inside(&slot.netns, move || {
            TcpStream::connect((to, world::PORT)).unwrap()
        })
    };
    let (mut kept, mut cut) = (connect("8.8.8.8"), connect("1.1.1.1"));
    ask_tcp(&mut kept).unwrap();
    ask_tcp(&mut cut).unwrap();
    pool.policy_apply(0, &compiled(None, &[], &["1.1.1.1"]))
        .unwrap();
    ask_tcp(&mut kept).unwrap();
    let error = ask_tcp(&mut cut).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn the_largest_policy_is_taken() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    let nets = |second: u8| (0..=255).map(move |third| format!("20.{second}.{third}.0/25"));
    let denied: Vec<String> = nets(0)
        .chain(nets(1))
        .chain(nets(2))
        .chain(nets(3))
        .collect();
    let policy = CompiledPolicy {
        allow: Vec::new(),
        deny: denied.iter().map(|text| text.parse().unwrap()).collect(),
        ..CompiledPolicy::open()
    };
    assert_eq!(policy.deny.len(), 1024);
    pool.policy_apply(0, &policy).unwrap();
    assert_eq!(tcp(&slot, "20.3.200.5"), Outcome::Refused);
    assert!(tcp(&slot, "8.8.8.8").is_reached());
}

#[test]
fn connections_are_bounded_for_each_slot() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let mut config = world.config("testaa00", "100.64.0.0/24");
    config.connections_per_slot_max = 5;
    let pool = NetPool::open(config).unwrap();
    let slots = pool.slots_create(0..2).unwrap();
    let held: Vec<std::io::Result<TcpStream>> = inside(&slots[0].netns, || {
        (0..8)
            .map(|_| TcpStream::connect(("8.8.8.8", world::PORT)))
            .collect()
    });
    assert_eq!(held.iter().filter(|stream| stream.is_ok()).count(), 5);
    assert_eq!(udp(&slots[0], "1.1.1.1"), Outcome::Refused);
    assert!(
        tcp(&slots[1], "8.8.8.8").is_reached(),
        "the neighbour has its own count"
    );
}

#[test]
fn mapped_addresses_are_refused_and_allowed_as_ipv4() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    let denied = compiled(None, &[], &["::ffff:8.8.8.8"]);
    pool.policy_apply(0, &denied).unwrap();
    assert_eq!(tcp(&slot, "8.8.8.8"), Outcome::Refused);
    assert_eq!(tcp(&slot, "::ffff:8.8.8.8"), Outcome::Refused);
    assert!(tcp(&slot, "1.1.1.1").is_reached());
    let allowed = compiled(Some(false), &["::ffff:8.8.8.8", "::ffff:10.9.8.7"], &[]);
    pool.policy_apply(0, &allowed).unwrap();
    assert!(tcp(&slot, "8.8.8.8").is_reached());
    assert_eq!(tcp(&slot, "1.1.1.1"), Outcome::Refused);
    assert_eq!(tcp(&slot, "10.9.8.7"), Outcome::Refused, "closed to all");
}
