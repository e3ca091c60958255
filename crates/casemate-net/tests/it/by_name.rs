//! Policies with domains: what goes to the proxy, and that nothing else gets out beside it.

use std::net::{TcpListener, TcpStream, UdpSocket};

use casemate_net::{NetPool, NetSlot};
use casemate_types::network::{CompiledPolicy, NetworkPolicy};

use crate::world::{
    self, CLOSED_TARGETS, HOST, OPEN_TARGETS, Outcome, World, ask_tcp, inside, output, rules_off,
    tcp_port, udp_from,
};

const PROXY_PORTS: [u16; 2] = [27_080, 27_443];

fn domains(allow: &[&str]) -> CompiledPolicy {
    let list = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    let allow = [allow, &["example.com"]].concat();
    NetworkPolicy {
        allow_out: list(&allow),
        deny_out: list(&["0.0.0.0/0"]),
        ..NetworkPolicy::default()
    }
    .compile()
    .unwrap()
}

fn as_host() -> Outcome {
    Outcome::Reached(HOST.parse().unwrap())
}

/// Only the proxy sees a slot's own address; all others see the host's.
fn at_proxy(slot: &NetSlot) -> Outcome {
    Outcome::Reached(slot.ip.into())
}

fn serve_tcp(listener: TcpListener) {
    let udp = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    world::serve_on(listener, udp);
}

fn serve_proxy(pool: &NetPool) {
    let (http, tls) = pool.proxy_sockets().unwrap();
    serve_tcp(http);
    serve_tcp(tls);
}

/// Services on more ports of an address outside.
fn serve_outside(world: &World, address: &str, ports: &[u16]) {
    inside(&world.outside, || {
        for port in ports {
            let udp = UdpSocket::bind((address, *port)).unwrap();
            world::serve_on(TcpListener::bind((address, *port)).unwrap(), udp);
        }
    });
}

#[test]
fn http_and_tls_go_to_the_proxy_wherever_they_are_sent() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slots = pool.slots_create(0..2).unwrap();
    serve_proxy(&pool);
    serve_outside(&world, OPEN_TARGETS[0], &[80, 443]);
    pool.policy_apply(0, &domains(&[])).unwrap();
    let other = slots[1].ip.to_string();
    let elsewhere = ["192.0.2.77", &other];
    for target in OPEN_TARGETS.iter().chain(&CLOSED_TARGETS).chain(&elsewhere) {
        for port in [80, 443] {
            let came = tcp_port(&slots[0], target, port);
            assert_eq!(came, at_proxy(&slots[0]), "{target}:{port}");
        }
    }
    assert_eq!(tcp_port(&slots[1], OPEN_TARGETS[0], 443), as_host());
    // What the host itself listens to stays closed.
    assert_eq!(tcp_port(&slots[0], HOST, 443), Outcome::Refused);
}

#[test]
fn nothing_but_http_and_tls_gets_out_beside_it() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    serve_proxy(&pool);
    let (ports, target) = ([443, 80, 853, 8443, 22], OPEN_TARGETS[0]);
    serve_outside(&world, target, &ports);
    pool.policy_apply(0, &domains(&[])).unwrap();
    for port in ports {
        let sent = udp_from(&slot, "0.0.0.0", target, port);
        assert!(!sent.is_reached(), "udp to port {port}");
    }
    for port in &ports[2..] {
        let sent = tcp_port(&slot, target, *port);
        assert_eq!(sent, Outcome::Refused, "tcp to port {port}");
    }
    rules_off("testaa00");
    for port in ports {
        let sent = udp_from(&slot, "0.0.0.0", target, port);
        assert!(sent.is_reached(), "control: udp to port {port}");
        let sent = tcp_port(&slot, target, port);
        assert!(sent.is_reached(), "control: tcp to port {port}");
    }
}

#[test]
fn allowed_addresses_are_reached_directly() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    serve_proxy(&pool);
    serve_outside(&world, OPEN_TARGETS[0], &[443]);
    let policy = domains(&[OPEN_TARGETS[0], CLOSED_TARGETS[0]]);
    pool.policy_apply(0, &policy).unwrap();
    assert_eq!(tcp_port(&slot, OPEN_TARGETS[0], 443), as_host());
    assert!(udp_from(&slot, "0.0.0.0", OPEN_TARGETS[0], 443).is_reached());
    assert_eq!(tcp_port(&slot, OPEN_TARGETS[1], 443), at_proxy(&slot));
    // Allowed by the tenant, closed by the platform.
    assert_eq!(tcp_port(&slot, CLOSED_TARGETS[0], 443), Outcome::Refused);
}

#[test]
fn the_proxy_is_for_slots_with_domains_only() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slots = pool.slots_create(0..2).unwrap();
    serve_proxy(&pool);
    pool.policy_apply(0, &domains(&[])).unwrap();
    let gateway = pool.gateway().to_string();
    let stranger = |netns| NetSlot {
        netns,
        index: 99,
        ip: slots[0].ip,
        host_link: String::new(),
    };
    let outside = stranger(world.outside);
    for port in PROXY_PORTS {
        for slot in [&slots[0], &slots[1], &outside, &stranger(world::host())] {
            let sent = tcp_port(slot, &gateway, port);
            assert_eq!(sent, Outcome::Refused, "slot {} to {port}", slot.index);
        }
    }
    assert_eq!(tcp_port(&slots[0], "8.8.8.8", 443), at_proxy(&slots[0]));
    rules_off("testaa00");
    for port in PROXY_PORTS {
        assert!(tcp_port(&outside, &gateway, port).is_reached(), "control");
        assert!(tcp_port(&slots[1], &gateway, port).is_reached(), "control");
    }
}

#[test]
fn without_a_proxy_it_is_refused() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    serve_outside(&world, OPEN_TARGETS[0], &[80, 443]);
    pool.policy_apply(0, &domains(&[])).unwrap();
    for port in [80, 443] {
        assert_eq!(tcp_port(&slot, OPEN_TARGETS[0], port), Outcome::Refused);
    }
    pool.policy_apply(0, &CompiledPolicy::open()).unwrap();
    for port in [80, 443] {
        assert_eq!(tcp_port(&slot, OPEN_TARGETS[0], port), as_host(), "control");
    }
}

#[test]
fn established_connections_obey_a_new_policy() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    serve_proxy(&pool);
    serve_outside(&world, OPEN_TARGETS[0], &[443]);
    let connect = || {
        inside(&slot.netns, || {
            TcpStream::connect((OPEN_TARGETS[0], 443)).unwrap()
        })
    };
    let mut direct = connect();
    assert_eq!(ask_tcp(&mut direct).unwrap(), HOST);
    pool.policy_apply(0, &domains(&[])).unwrap();
    assert!(ask_tcp(&mut direct).is_err(), "it went past the proxy");
    let mut proxied = connect();
    assert_eq!(ask_tcp(&mut proxied).unwrap(), slot.ip.to_string());
    pool.policy_apply(0, &domains(&["1.1.1.1"])).unwrap();
    ask_tcp(&mut proxied).expect("still judged by name");
    pool.policy_apply(0, &CompiledPolicy::open()).unwrap();
    assert!(
        ask_tcp(&mut proxied).is_err(),
        "no names are judged any more"
    );
    assert_eq!(ask_tcp(&mut connect()).unwrap(), HOST);
}

#[test]
fn it_holds_through_another_start_and_ends_with_the_slot() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    pool.policy_apply(0, &domains(&[])).unwrap();
    drop(pool);
    let pool = world.pool();
    serve_proxy(&pool);
    assert!(pool.has_policy(0));
    assert_eq!(tcp_port(&slot, OPEN_TARGETS[0], 443), at_proxy(&slot));
    pool.retire(vec![slot]).unwrap();
    assert!(!pool.has_policy(0));
}

#[test]
fn the_table_of_an_older_version_is_taken_over() {
    if !world::enabled() {
        return;
    }
    let world = World::new();
    let set = "type ipv4_addr . ipv4_addr; flags interval;";
    let element = "elements = { 100.64.0.2 . 0.0.0.0-255.255.255.255 };";
    let older = format!(
        "table inet casemate_testaa00 {{ set allow_out {{ {set} }}; set deny_out {{ {set} {element} }}; }}"
    );
    output("nft", &[&older]);
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    assert!(pool.has_policy(0));
    assert_eq!(tcp_port(&slot, OPEN_TARGETS[0], 443), Outcome::Refused);
}
