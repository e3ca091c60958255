//! Questions to any name server end at the instance's resolver.

use crate::world::{self, HOST, OPEN_TARGETS, Outcome, World, tcp_port, udp_from};

#[test]
fn port_53_of_any_address_is_the_resolver() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slots = pool.slots_create(0..2).unwrap();
    let (udp, tcp) = pool.dns_sockets().unwrap();
    world::serve_on(tcp, udp);
    let seen = Outcome::Reached(slots[0].ip.into());
    let gateway = pool.gateway().to_string();
    let other = slots[1].ip.to_string();
    for server in [
        &gateway,
        OPEN_TARGETS[0],
        "192.0.2.77",
        "10.9.8.7",
        HOST,
        &other,
    ] {
        // Only the resolver sees the slot's own address; all others see the host's.
        assert_eq!(
            udp_from(&slots[0], "0.0.0.0", server, 53),
            seen,
            "udp to {server}"
        );
        assert_eq!(tcp_port(&slots[0], server, 53), seen, "tcp to {server}");
    }
}

#[test]
fn the_resolver_is_for_slots_only() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    let (udp, tcp) = pool.dns_sockets().unwrap();
    world::serve_on(tcp, udp);
    let gateway = pool.gateway().to_string();
    for netns in [world.outside, world::host()] {
        let stranger = casemate_net::NetSlot {
            netns,
            index: 99,
            ip: slot.ip,
            host_link: String::new(),
        };
        assert_eq!(tcp_port(&stranger, &gateway, 53), Outcome::Refused);
        assert!(!udp_from(&stranger, "0.0.0.0", &gateway, 53).is_reached());
    }
    assert!(tcp_port(&slot, &gateway, 53).is_reached(), "control");
}
