//! Hostile slots, limits, the end.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Duration;

use casemate_egress::{Dns, EgressConfig};
use casemate_linux::scm;

use crate::world::{
    A, FIRST, NO_ERROR, OTHER_SLOT, REFUSED, SECOND, SERVER_FAILURE, SLOT, answer, ask_tcp,
    ask_udp, asker, code, config, connect, enabled, hear, name_server, question, start,
};

const FOUND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

#[test]
fn questions_under_way_are_bounded() {
    if !enabled() {
        return;
    }
    let egress = start(EgressConfig {
        questions_per_slot_max: 3,
        questions_max: 4,
        upstream_timeout: Duration::from_millis(700),
        ..config()
    });
    name_server(FIRST, |_| Vec::new());
    name_server(SECOND, |_| Vec::new());
    for slot in [SLOT, OTHER_SLOT] {
        egress.say(slot, Dns::Allowed, &[]);
    }
    let (mine, theirs) = (asker(SLOT), asker(OTHER_SLOT));
    for id in 1..=4 {
        mine.send(&question(id, A)).unwrap();
    }
    let refused = hear(&mine).unwrap();
    assert_eq!(
        (refused[1], code(&refused)),
        (4, REFUSED),
        "one too many of the slot"
    );
    for id in 1..=2 {
        theirs.send(&question(id, A)).unwrap();
    }
    let failed = hear(&theirs).unwrap();
    assert_eq!(
        (failed[1], code(&failed)),
        (2, SERVER_FAILURE),
        "one too many of all"
    );
    // The others end, and their places are free again.
    for _ in 1..=3 {
        assert_eq!(code(&hear(&mine).unwrap()), SERVER_FAILURE);
    }
    mine.send(&question(5, A)).unwrap();
    assert_eq!(
        code(&hear(&mine).unwrap()),
        SERVER_FAILURE,
        "asked again, not refused"
    );
}

#[test]
fn connections_are_bounded_and_idle_ones_closed() {
    if !enabled() {
        return;
    }
    let egress = start(EgressConfig {
        connections_per_slot_max: 2,
        idle_timeout: Duration::from_millis(300),
        ..config()
    });
    name_server(FIRST, |q| vec![answer(q, FOUND)]);
    egress.say(SLOT, Dns::Allowed, &[]);
    egress.say(OTHER_SLOT, Dns::Allowed, &[]);
    let mut first = connect(SLOT);
    ask_tcp(&mut first, &question(1, A)).unwrap();
    let mut second = connect(SLOT);
    ask_tcp(&mut second, &question(1, A)).unwrap();
    assert!(
        ask_tcp(&mut connect(SLOT), &question(1, A)).is_err(),
        "one too many"
    );
    ask_tcp(&mut connect(OTHER_SLOT), &question(1, A)).expect("the other slot has its own count");
    // Idle, or with a message never finished: closed alike.
    second.write_all(&[0, 40, 1, 2, 3]).unwrap();
    assert_eq!(first.read(&mut [0; 10]).unwrap(), 0);
    assert_eq!(second.read(&mut [0; 10]).unwrap(), 0);
    ask_tcp(&mut connect(SLOT), &question(1, A)).expect("places come back");
}

#[test]
fn garbage_hurts_nobody() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    name_server(FIRST, |q| vec![answer(q, FOUND)]);
    egress.say(SLOT, Dns::Allowed, &[]);
    egress.say(OTHER_SLOT, Dns::Allowed, &[]);
    let socket = asker(SLOT);
    for len in 0..400 {
        let packet: Vec<u8> = (0..len).map(|at| (at * len % 251) as u8).collect();
        socket.send(&packet).unwrap();
    }
    socket.send(&vec![0xff; 20_000]).unwrap();
    for start in [
        &[0_u8, 0][..],
        &[0xff, 0xff, 1],
        &[0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        connect(SLOT).write_all(start).unwrap();
    }
    // Nor does a message from the node that cannot be read.
    scm::send(egress.control.as_fd(), b"not json", &[]).unwrap();
    scm::send(egress.control.as_fd(), &vec![b' '; 100_000], &[]).unwrap();
    for slot in [SLOT, OTHER_SLOT] {
        assert_eq!(code(&ask_udp(slot, &question(7, A))), NO_ERROR);
    }
}

#[test]
fn it_ends_with_the_node() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    egress.say(SLOT, Dns::Allowed, &[]);
    drop(egress.control);
    egress.ended.join().unwrap().unwrap();
}
