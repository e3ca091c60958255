//! What a sandbox must not reach, each with the control that shows it reachable without the rules.

use std::net::UdpSocket;
use std::time::Duration;

use casemate_net::{NetPool, NetSlot};

use crate::world::{
    self, CLOSED_TARGETS, HOST, HOST_SECOND, OPEN_TARGETS, OUTSIDE, Outcome, World, inside, ip,
    rules_off, tcp, udp, udp_from,
};

/// Tries each target over TCP and UDP: refused while the rules are there, reached once they are
/// gone. Over UDP the refusal may be silent, as the kernel sends an address few errors a second.
#[track_caller]
fn check_closed(slot: &NetSlot, targets: &[&str]) {
    for target in targets {
        assert_eq!(tcp(slot, target), Outcome::Refused, "tcp to {target}");
        assert!(!udp(slot, target).is_reached(), "udp to {target}");
    }
    rules_off("testaa00");
    for target in targets {
        assert!(tcp(slot, target).is_reached(), "control: tcp to {target}");
        assert!(udp(slot, target).is_reached(), "control: udp to {target}");
    }
}

fn two_slots(pool: &NetPool) -> (NetSlot, NetSlot) {
    let mut slots = pool.slots_create(0..2).unwrap();
    let second = slots.remove(1);
    (slots.remove(0), second)
}

#[test]
fn the_internet_is_reached_as_the_host() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(7).unwrap();
    let host = Outcome::Reached(HOST.parse().unwrap());
    for target in OPEN_TARGETS.iter().chain(&[OUTSIDE]) {
        assert_eq!(tcp(&slot, target), host, "tcp to {target}");
        assert_eq!(udp(&slot, target), host, "udp to {target}");
    }
}

#[test]
fn other_sandboxes_are_closed() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let (slot, other) = two_slots(&pool);
    let theirs = other.ip.to_string();
    inside(&other.netns, || world::serve(&[&theirs]));
    check_closed(&slot, &[&theirs]);
}

#[test]
fn the_host_is_closed_on_each_of_its_addresses() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    let gateway = pool.gateway().to_string();
    world::serve(&[&gateway]);
    check_closed(&slot, &[HOST, HOST_SECOND, &gateway]);
}

#[test]
fn private_and_metadata_addresses_are_closed() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    check_closed(&slot, &CLOSED_TARGETS);
}

#[test]
fn a_range_opened_by_name_opens_only_itself() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let mut config = world.config("testaa00", "100.64.0.0/24");
    // Wide enough to hold the subnet itself, an address of the host and the gateway.
    ip("addr add 100.64.77.1/32 dev lo");
    config.allow_ranges = vec![
        "100.64.0.0/10".parse().unwrap(),
        "10.9.8.0/24".parse().unwrap(),
    ];
    let pool = NetPool::open(config).unwrap();
    let (slot, other) = two_slots(&pool);
    assert!(tcp(&slot, "10.9.8.7").is_reached());
    assert!(udp(&slot, "100.100.100.200").is_reached());
    let gateway = pool.gateway().to_string();
    world::serve(&["100.64.77.1", &gateway]);
    let netns = other.netns;
    let other = other.ip.to_string();
    inside(&netns, || world::serve(&[&other]));
    check_closed(&slot, &["192.168.7.7", "100.64.77.1", &other, &gateway]);
}

#[test]
fn another_instances_sandboxes_are_closed_though_their_range_is_open() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let mut config = world.config("testaa00", "100.64.0.0/24");
    config.allow_ranges = vec!["100.64.0.0/10".parse().unwrap()];
    let pool = NetPool::open(config).unwrap();
    let theirs = NetPool::open(world.config("testbb00", "100.64.1.0/24")).unwrap();
    let slot = pool.slot_create(0).unwrap();
    let other = theirs.slot_create(0).unwrap();
    let (other_ip, gateway) = (other.ip.to_string(), theirs.gateway().to_string());
    inside(&other.netns, || world::serve(&[&other_ip]));
    world::serve(&[&gateway]);
    for target in [&other_ip, &gateway] {
        assert!(!tcp(&slot, target).is_reached(), "tcp to {target}");
        assert!(!udp(&slot, target).is_reached(), "udp to {target}");
    }
    rules_off("testbb00");
    rules_off("testaa00");
    assert!(tcp(&slot, &other_ip).is_reached(), "control");
    assert!(tcp(&slot, &gateway).is_reached(), "control");
}

#[test]
fn a_stranger_outside_reaches_no_sandbox() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let (slot, other) = two_slots(&pool);
    let target = slot.ip.to_string();
    inside(&slot.netns, || world::serve(&[&target]));
    // The outside routes the slots' subnet to the host already; its namespace is as good as a
    // slot's for asking.
    let outside = NetSlot {
        netns: world.outside,
        ..other
    };
    assert!(!tcp(&outside, &target).is_reached());
    assert!(!udp(&outside, &target).is_reached());
    rules_off("testaa00");
    assert!(tcp(&outside, &target).is_reached(), "control");
    assert!(udp(&outside, &target).is_reached(), "control");
}

#[test]
fn a_false_sender_gets_nothing_through() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let (slot, other) = two_slots(&pool);
    let stranger = "9.9.9.9";
    inside(&slot.netns, || {
        ip(&format!("addr add {stranger}/32 dev lo"));
        ip(&format!("addr add {}/32 dev lo", other.ip));
    });
    // So that answers to the false address would come back here: the control needs them.
    ip(&format!("route add {stranger}/32 dev {}", slot.host_link));
    assert_eq!(
        udp_from(&slot, stranger, OPEN_TARGETS[0], world::PORT),
        Outcome::Silent
    );
    let neighbour = other.ip.to_string();
    assert_eq!(
        udp_from(&slot, &neighbour, OPEN_TARGETS[0], world::PORT),
        Outcome::Silent
    );
    assert_eq!(
        udp_from(&slot, &neighbour, &pool.gateway().to_string(), 53),
        Outcome::Silent
    );
    rules_off("testaa00");
    assert_eq!(
        udp_from(&slot, stranger, OPEN_TARGETS[0], world::PORT),
        Outcome::Reached(stranger.parse().unwrap()),
        "control"
    );
}

#[test]
fn there_is_no_ipv6_beyond_loopback() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    inside(&slot.netns, || world::serve(&["::1"]));
    assert_eq!(tcp(&slot, "::1"), Outcome::Reached("::1".parse().unwrap()));
    for literal in ["2001:db8::1", "fd00::1", "fe80::1"] {
        assert_eq!(tcp(&slot, literal), Outcome::Refused, "{literal}");
    }
    let host_link = &slot.host_link;
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").unwrap();
    assert!(!addresses.contains(host_link), "{addresses}");
    // Should somebody give both ends addresses, the rules still hold.
    ip(&format!("-6 addr add fd77::1/64 dev {host_link} nodad"));
    inside(&slot.netns, || {
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
        ip("-6 addr add fd77::2/64 dev eth0 nodad");
    });
    world::serve(&["fd77::1"]);
    assert!(!tcp(&slot, "fd77::1").is_reached());
    assert!(!udp(&slot, "fd77::1").is_reached());
    rules_off("testaa00");
    assert!(tcp(&slot, "fd77::1").is_reached(), "control");
    assert!(udp(&slot, "fd77::1").is_reached(), "control");
}

#[test]
fn a_published_port_of_another_program_is_no_way_round() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    // As Docker does it: a port of the host is translated to a private address.
    let redirect = "add table ip other; add chain ip other pre { type nat hook prerouting priority \
                    dstnat; }; add rule ip other pre tcp dport 8080 dnat to 10.9.8.7:7777";
    world::output("nft", &[redirect]);
    assert_eq!(world::tcp_port(&slot, HOST, 8080), Outcome::Refused);
    assert_eq!(
        world::tcp_port(&slot, OPEN_TARGETS[0], 8080),
        Outcome::Refused
    );
    rules_off("testaa00");
    assert!(world::tcp_port(&slot, HOST, 8080).is_reached(), "control");
}

#[test]
fn the_host_hears_no_broadcast_or_multicast() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    let listener = UdpSocket::bind(("0.0.0.0", 5353)).unwrap();
    // The host is a member, as one that runs mDNS is.
    ip(&format!(
        "addr add 224.0.0.251/32 dev {} autojoin",
        slot.host_link
    ));
    listener
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let heard = |to: &str| {
        inside(&slot.netns, || {
            let socket = UdpSocket::bind((slot.ip, 0)).unwrap();
            socket.set_broadcast(true).unwrap();
            let _ = socket.send_to(b"hello", (to, 5353));
        });
        listener.recv(&mut [0; 10]).is_ok()
    };
    let targets = ["203.0.113.255", "255.255.255.255", "224.0.0.251"];
    for target in targets {
        assert!(!heard(target), "{target}");
    }
    rules_off("testaa00");
    for target in targets {
        assert!(heard(target), "control: {target}");
    }
}
