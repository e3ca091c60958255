//! Other firewalls on the same host.

use crate::world::{self, Outcome, World, output, snapshot, tcp, tcp_port, udp_from};

/// Another firewall refuses slots; it is found, told, and afterwards as it was before.
fn check_admitted(others: impl Fn()) {
    let world = World::new();
    others();
    let before = snapshot();
    let found = casemate_net::neighbours();
    assert_eq!(found.len(), 2, "{found:?}");
    let pool = world.pool();
    let slot = pool.slot_create(0).unwrap();
    let (udp, tcp_listener) = pool.dns_sockets().unwrap();
    world::serve_on(tcp_listener, udp);
    let gateway = pool.gateway().to_string();
    assert_eq!(tcp(&slot, "8.8.8.8"), Outcome::Silent);
    assert_eq!(tcp_port(&slot, &gateway, 53), Outcome::Silent);
    for _ in 0..2 {
        assert_eq!(pool.neighbours_admit().unwrap(), []);
    }
    assert!(tcp(&slot, "8.8.8.8").is_reached());
    assert!(tcp_port(&slot, &gateway, 53).is_reached());
    assert!(udp_from(&slot, "0.0.0.0", &gateway, 53).is_reached());
    // Our own judgement stands.
    assert_eq!(tcp(&slot, "10.9.8.7"), Outcome::Refused);
    assert_eq!(tcp(&slot, world::HOST), Outcome::Refused);
    pool.retire(vec![slot]).unwrap();
    pool.purge().unwrap();
    assert_eq!(without_counters(&snapshot()), without_counters(&before));
}

/// Rules of `iptables` count.
fn without_counters(text: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    for at in 0..words.len().saturating_sub(4) {
        if words[at] == "packets" && words[at + 2] == "bytes" {
            (words[at + 1], words[at + 3]) = ("n", "n");
        }
    }
    words.join(" ")
}

#[test]
fn iptables_with_docker_is_told() {
    if !world::enabled() {
        return;
    }
    check_admitted(|| {
        output("iptables", &["-N", "DOCKER-USER"]);
        output("iptables", &["-A", "FORWARD", "-j", "DOCKER-USER"]);
        output("iptables", &["-P", "FORWARD", "DROP"]);
        output("iptables", &["-P", "INPUT", "DROP"]);
    });
}

#[test]
fn nft_chains_are_told() {
    if !world::enabled() {
        return;
    }
    check_admitted(|| {
        let text = "add table inet mine; add chain inet mine through { type filter hook forward \
                    priority 0; policy drop; }; add chain inet mine here { type filter hook input \
                    priority 0; policy drop; }";
        output("nft", &[text]);
    });
}
