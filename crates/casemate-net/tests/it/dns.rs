//! Questions to any name server end at the instance's resolver.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use casemate_net::NetSlot;
use casemate_types::network::{CompiledPolicy, DomainPattern};

use crate::world::{
    self, HOST, OPEN_TARGETS, Outcome, World, inside, rules_off, tcp_port, udp_from,
};

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

/// A resolver of one thread that has some work with each question.
fn serve_slowly(udp: UdpSocket) {
    thread::spawn(move || {
        let mut question = [0; 100];
        while let Ok((_, peer)) = udp.recv_from(&mut question) {
            thread::sleep(Duration::from_micros(500));
            let _ = udp.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
}

/// How many of these questions of a slot get no answer while another one sends without a pause.
fn lost_in_a_flood(flooder: &NetSlot, asker: &NetSlot, gateway: &str, questions: usize) -> usize {
    let ended = AtomicBool::new(false);
    let flood = || {
        let socket = UdpSocket::bind((flooder.ip, 0)).unwrap();
        while !ended.load(Ordering::Relaxed) {
            let _ = socket.send_to(b"question", (gateway, 53));
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| inside(&flooder.netns, flood));
        thread::sleep(Duration::from_millis(300));
        let lost = (0..questions)
            .filter(|_| !udp_from(asker, "0.0.0.0", gateway, 53).is_reached())
            .count();
        ended.store(true, Ordering::Relaxed);
        lost
    })
}

#[test]
fn a_flood_of_questions_keeps_no_neighbour_from_asking() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slots = pool.slots_create(0..2).unwrap();
    let (udp, _tcp) = pool.dns_sockets().unwrap();
    serve_slowly(udp);
    let gateway = pool.gateway().to_string();
    assert_eq!(lost_in_a_flood(&slots[0], &slots[1], &gateway, 20), 0);
    // The rate comes back with the table.
    rules_off("testaa00");
    assert!(pool.heal().unwrap());
    assert_eq!(lost_in_a_flood(&slots[0], &slots[1], &gateway, 5), 0);
    rules_off("testaa00");
    let lost = lost_in_a_flood(&slots[0], &slots[1], &gateway, 5);
    assert!(lost > 0, "control");
}

/// Connects until one is not accepted at once, and says how many were.
fn connects(slot: &NetSlot, to: &str, port: u16, max: usize) -> usize {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let accepted = |_: &usize| TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_ok();
    inside(&slot.netns, || (0..max).take_while(accepted).count())
}

#[test]
fn connections_to_resolver_and_proxy_have_a_rate() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slots = pool.slots_create(0..3).unwrap();
    let (udp, tcp) = pool.dns_sockets().unwrap();
    world::serve_on(tcp, udp);
    let (_http, tls) = pool.proxy_sockets().unwrap();
    world::serve_on(tls, UdpSocket::bind(("127.0.0.1", 0)).unwrap());
    let by_name = CompiledPolicy {
        deny: vec!["0.0.0.0/0".parse().unwrap()],
        domains: vec![DomainPattern::All],
        ..CompiledPolicy::open()
    };
    pool.policy_apply(1, &by_name).unwrap();
    let gateway = pool.gateway().to_string();
    for (slot, to, port) in [(0, &*gateway, 53), (1, "192.0.2.77", 443)] {
        let began = Instant::now();
        let accepted = connects(&slots[slot], to, port, 2000);
        let earned = 200.0 * began.elapsed().as_secs_f64();
        assert!(
            accepted >= 400 && (accepted as f64) < 402.0 + earned,
            "{accepted} to port {port}, {earned} beyond the burst"
        );
        assert!(tcp_port(&slots[2], &gateway, 53).is_reached(), "another's");
        assert!(tcp_port(&slots[slot], to, port).is_reached(), "soon after");
    }
    rules_off("testaa00");
    assert_eq!(connects(&slots[0], &gateway, 53, 1000), 1000, "control");
}
