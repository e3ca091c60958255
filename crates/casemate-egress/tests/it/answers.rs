//! Who gets which answer.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use casemate_egress::Dns;

use crate::world::{
    A, AAAA, FIRST, NO_ERROR, OTHER_SLOT, REFUSED, SECOND, SERVER_FAILURE, SLOT, answer, ask_tcp,
    ask_udp, asker, code, config, connect, enabled, hear, name_server, question, start,
};

const FOUND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

#[test]
fn a_slot_is_answered_as_the_node_said() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    let asked = name_server(FIRST, |q| vec![answer(q, FOUND)]);
    let expected = answer(&question(7, A), FOUND);
    assert_eq!(
        code(&ask_udp(SLOT, &question(7, A))),
        REFUSED,
        "nothing was said"
    );
    egress.say(SLOT, Dns::Allowed, &[]);
    assert_eq!(ask_udp(SLOT, &question(7, A)), expected);
    assert_eq!(
        ask_tcp(&mut connect(SLOT), &question(7, A)).unwrap(),
        expected
    );
    assert_eq!(
        code(&ask_udp(OTHER_SLOT, &question(7, A))),
        REFUSED,
        "not said of this one"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    egress.say(SLOT, Dns::Refused, &[]);
    assert_eq!(code(&ask_udp(SLOT, &question(7, A))), REFUSED);
    let refused = ask_tcp(&mut connect(SLOT), &question(7, A)).unwrap();
    assert_eq!(code(&refused), REFUSED);
    egress.say(SLOT, Dns::Allowed, &[]);
    egress.forget(SLOT);
    assert_eq!(code(&ask_udp(SLOT, &question(7, A))), REFUSED, "forgotten");
    assert_eq!(
        asked.load(Ordering::SeqCst),
        2,
        "nothing leaves for the refused"
    );
}

#[test]
fn what_was_said_holds_for_the_very_next_question() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    name_server(FIRST, |q| vec![answer(q, FOUND)]);
    let socket = asker(SLOT);
    for round in 0..500 {
        let (dns, expected) = match round % 2 {
            0 => (Dns::Allowed, NO_ERROR),
            _ => (Dns::Refused, REFUSED),
        };
        egress.say(SLOT, dns, &[]);
        socket.send(&question(round, A)).unwrap();
        let answer = hear(&socket).unwrap();
        assert_eq!(
            (&answer[..2], code(&answer)),
            (&round.to_be_bytes()[..], expected)
        );
    }
}

#[test]
fn ipv6_addresses_are_answered_with_none_at_once() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    let asked = name_server(FIRST, |q| vec![answer(q, FOUND)]);
    egress.say(SLOT, Dns::Allowed, &[]);
    let answer = ask_udp(SLOT, &question(7, AAAA));
    assert_eq!(code(&answer), NO_ERROR);
    assert_eq!(answer[6..8], [0, 0], "no records");
    assert_eq!(answer[12..], question(7, AAAA)[12..]);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn the_next_server_is_asked_when_one_is_silent() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    egress.say(SLOT, Dns::Allowed, &[]);
    let first = name_server(FIRST, |_| Vec::new());
    let second = name_server(SECOND, |q| vec![answer(q, FOUND)]);
    assert_eq!(
        ask_udp(SLOT, &question(7, A)),
        answer(&question(7, A), FOUND)
    );
    assert_eq!(first.load(Ordering::SeqCst), 1);
    assert_eq!(second.load(Ordering::SeqCst), 1);
    let over_tcp = ask_tcp(&mut connect(SLOT), &question(8, A)).unwrap();
    assert_eq!(over_tcp, answer(&question(8, A), FOUND));
}

#[test]
fn no_server_at_all_is_a_failure_in_time() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    egress.say(SLOT, Dns::Allowed, &[]);
    let started = Instant::now();
    assert_eq!(
        code(&ask_udp(SLOT, &question(7, A))),
        SERVER_FAILURE,
        "port closed"
    );
    assert!(
        started.elapsed() < Duration::from_millis(250),
        "{:?}",
        started.elapsed()
    );
    name_server(FIRST, |_| Vec::new());
    name_server(SECOND, |_| Vec::new());
    let started = Instant::now();
    assert_eq!(
        code(&ask_udp(SLOT, &question(7, A))),
        SERVER_FAILURE,
        "silent"
    );
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn forged_answers_are_passed_over() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    egress.say(SLOT, Dns::Allowed, &[]);
    let forged = Ipv4Addr::new(6, 6, 6, 6);
    name_server(FIRST, move |q| {
        let mut other_number = answer(q, forged);
        other_number[1] ^= 1;
        let mut other_name = answer(q, forged);
        other_name[14] = b'y';
        let cut = answer(q, forged)[..16].to_vec();
        vec![other_number, other_name, cut, q.to_vec(), answer(q, FOUND)]
    });
    assert_eq!(
        ask_udp(SLOT, &question(7, A)),
        answer(&question(7, A), FOUND)
    );
}

#[test]
fn a_slots_own_servers_are_asked_but_not_closed_ones() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    let first = name_server(FIRST, |q| vec![answer(q, FOUND)]);
    let second = name_server(SECOND, |q| vec![answer(q, FOUND)]);
    egress.say(SLOT, Dns::Allowed, &[SECOND]);
    assert_eq!(code(&ask_udp(SLOT, &question(7, A))), NO_ERROR);
    assert_eq!(
        (first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)),
        (0, 1)
    );
    let local = name_server(Ipv4Addr::LOCALHOST, |q| vec![answer(q, FOUND)]);
    egress.say(SLOT, Dns::Allowed, &[Ipv4Addr::LOCALHOST]);
    assert_eq!(code(&ask_udp(SLOT, &question(7, A))), SERVER_FAILURE);
    assert_eq!(local.load(Ordering::SeqCst), 0);
    assert_eq!(
        (first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)),
        (0, 1)
    );
}

#[test]
fn long_answers_come_over_tcp() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    egress.say(SLOT, Dns::Allowed, &[]);
    name_server(FIRST, |q| {
        let mut long = answer(q, FOUND);
        long.resize(60_000, 0);
        vec![long]
    });
    let cut = ask_udp(SLOT, &question(7, A));
    assert_eq!(cut[2] & 0x02, 0x02, "says that it is cut");
    assert_eq!(cut[12..], question(7, A)[12..]);
    let mut stream = connect(SLOT);
    for id in [7, 8] {
        let whole = ask_tcp(&mut stream, &question(id, A)).unwrap();
        assert_eq!(whole.len(), 60_000);
        assert_eq!(whole[..2], id.to_be_bytes());
    }
}
