//! Which names are answered under a policy with domains.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use casemate_egress::Dns;

use crate::outside::names;
use crate::world::{
    A, NO_ERROR, REFUSED, SLOT, ask_tcp, ask_udp, code, config, connect, enabled, question_for,
    start,
};

const FOUND: &[Ipv4Addr] = &[Ipv4Addr::new(203, 0, 113, 80)];
const TXT: u16 = 16;
const HTTPS: u16 = 65;

#[test]
fn only_names_that_the_policy_opens_are_asked_for() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    let asked = names(&[
        ("example.org", FOUND),
        ("a.open.org", FOUND),
        ("open.org", FOUND),
        ("secret.evil.net", FOUND),
    ]);
    egress.open(SLOT, &["example.org", "*.open.org"]);
    let ask = |name: &str, kind| {
        let question = question_for(name, 7, kind);
        let over_tcp = ask_tcp(&mut connect(SLOT), &question).unwrap();
        let over_udp = ask_udp(SLOT, &question);
        assert_eq!(code(&over_udp), code(&over_tcp), "{name}");
        code(&over_udp)
    };
    for name in ["example.org", "EXAMPLE.org", "a.open.org"] {
        assert_eq!(ask(name, A), NO_ERROR, "{name}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 6);
    // What somebody wants to tell the world stands in the name.
    for name in [
        "secret.evil.net",
        "secret.example.org",
        "open.org",
        "badopen.org",
        "org",
    ] {
        for kind in [A, TXT] {
            assert_eq!(ask(name, kind), REFUSED, "{name}");
        }
    }
    assert_eq!(
        asked.load(Ordering::SeqCst),
        6,
        "nothing left for the refused"
    );
    egress.say(SLOT, Dns::Refused, &[]);
    assert_eq!(ask("example.org", A), REFUSED);
    assert_eq!(asked.load(Ordering::SeqCst), 6);
    egress.open(SLOT, &["*"]);
    assert_eq!(ask("secret.evil.net", A), NO_ERROR, "control");
}

#[test]
fn nobody_is_told_of_quic_or_hidden_names() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    let asked = names(&[("example.org", FOUND)]);
    egress.open(SLOT, &["example.org"]);
    let answer = ask_udp(SLOT, &question_for("example.org", 7, HTTPS));
    assert_eq!((code(&answer), &answer[6..8]), (NO_ERROR, &[0, 0][..]));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    egress.say(SLOT, Dns::Allowed, &[]);
    ask_udp(SLOT, &question_for("example.org", 7, HTTPS));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "as ever without domains");
}
