//! TLS by the name in its hello. The servers speak none: what they hear is what was sent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use casemate_egress::{Dns, EgressConfig};

use crate::outside::{CLOSED, EVIL, GOOD, names, outside};
use crate::world::{
    FIRST, OTHER_SLOT, SLOT, TLS, answer_all, config, connect_to, enabled, name_server, start,
};

const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A hello with this name and these further extensions.
fn hello_with(name: Option<&str>, more: &[u8]) -> Vec<u8> {
    let mut extensions = more.to_vec();
    if let Some(name) = name {
        let entry = [&[0], &*long(name.as_bytes())].concat();
        extensions.extend([&[0, 0], &*long(&long(&entry))].concat());
    }
    let mut body = [&[3, 3][..], &[7; 32], &[0], &long(&[0x13, 1]), &[1, 0]].concat();
    body.extend(long(&extensions));
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[22, 3, 1], &*long(&[&[1, a, b, c], &*body].concat())].concat()
}

fn hello(name: &str) -> Vec<u8> {
    hello_with(Some(name), &[])
}

/// Sends, ends sending, and hears all that comes back.
fn exchange(slot: Ipv4Addr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect_to(slot, TLS);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    heard
}

/// A connection whose hello has come back: it is carried.
fn carried(slot: Ipv4Addr, name: &str) -> TcpStream {
    let mut stream = connect_to(slot, TLS);
    say(&mut stream, &hello(name));
    stream
}

fn say(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut heard = vec![0; bytes.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, bytes);
}

#[track_caller]
fn check_ended(stream: &mut TcpStream) {
    let began = Instant::now();
    let heard = stream.read(&mut [0; 10]);
    assert!(
        matches!(heard, Ok(0) | Err(_)) && began.elapsed() < Duration::from_secs(1),
        "{heard:?}"
    );
}

#[test]
fn bytes_go_to_what_the_name_is_and_back() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    let seen = outside();
    names(&[
        ("good.org", &[GOOD]),
        ("www.open.org", &[GOOD]),
        ("open.org", &[GOOD]),
    ]);
    egress.open(SLOT, &["good.org", "*.open.org"]);
    for name in ["good.org", "GOOD.Org", "www.open.org"] {
        let sent = [hello(name), vec![23, 3, 3, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(
            exchange(SLOT, &sent),
            [&*sent, b"the end"].concat(),
            "{name}"
        );
    }
    // A hello that comes byte by byte is the same.
    let mut stream = connect_to(SLOT, TLS);
    stream.set_nodelay(true).unwrap();
    let slow = hello("good.org");
    for byte in &slow {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut heard = vec![0; slow.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, slow);
    let much = vec![0x5a; 3_000_000];
    let mut writing = stream.try_clone().unwrap();
    let sent = much.clone();
    let writer = thread::spawn(move || writing.write_all(&sent).unwrap());
    let mut heard = vec![0; much.len()];
    stream.read_exact(&mut heard).unwrap();
    writer.join().unwrap();
    assert_eq!(heard, much);
    assert!(seen.at(EVIL).is_empty());
}

#[test]
fn other_names_are_refused() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    let seen = outside();
    names(&[
        ("good.org", &[GOOD]),
        ("evil.net", &[EVIL]),
        ("open.org", &[EVIL]),
        ("badopen.org", &[EVIL]),
    ]);
    egress.open(SLOT, &["good.org", "*.open.org"]);
    let long_name = format!("{}open.org", "a.".repeat(130));
    let hidden = [&[0xfe, 0x0d], &*long(&[0; 40])].concat();
    let attacks: [(&str, Vec<u8>); 10] = [
        ("another name", hello("evil.net")),
        ("the apex of a wildcard", hello("open.org")),
        ("a name that ends alike", hello("badopen.org")),
        ("no name", hello_with(None, &[])),
        ("an address", hello("198.51.100.66")),
        ("a name with a zero in it", hello("evil.net\0.open.org")),
        ("a name that is too long", hello(&long_name)),
        ("a hidden name", hello_with(Some("good.org"), &hidden)),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: good.org\r\n\r\n".to_vec()),
        ("nothing that is known", vec![0; 600]),
    ];
    for (what, bytes) in &attacks {
        assert_eq!(exchange(SLOT, bytes), ACCESS_DENIED, "{what}");
    }
    // Refused before all of it is read, so that the alert may be lost.
    let padding = [&[0, 21], &*long(&[0; 17_000])].concat();
    exchange(SLOT, &hello_with(Some("good.org"), &padding));
    assert!(seen.at(GOOD).is_empty(), "a hello that is too large");
    let pieces = hello("good.org")[5..].to_vec();
    let pieces: Vec<u8> = pieces.iter().flat_map(|b| [22, 3, 1, 0, 1, *b]).collect();
    exchange(SLOT, &pieces);
    assert!(seen.at(GOOD).is_empty(), "a hello in too many records");
    assert!(seen.at(EVIL).is_empty());
    assert_eq!(
        exchange(OTHER_SLOT, &hello("good.org")),
        b"",
        "a slot that nobody named"
    );
    egress.say(OTHER_SLOT, Dns::Allowed, &[]);
    assert_eq!(
        exchange(OTHER_SLOT, &hello("good.org")),
        b"",
        "a slot without domains"
    );
    egress.open(SLOT, &["*"]);
    for name in ["evil.net", "open.org", "badopen.org"] {
        carried(SLOT, name);
    }
    carried(SLOT, "good.org");
}

#[test]
fn names_lead_to_no_closed_address() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    let seen = outside();
    let closed: Vec<Ipv4Addr> = CLOSED.iter().map(|text| text.parse().unwrap()).collect();
    let known: Vec<(String, Vec<Ipv4Addr>)> = closed
        .iter()
        .chain(&[
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::UNSPECIFIED,
            [203, 0, 113, 1].into(),
            SLOT,
        ])
        .enumerate()
        .map(|(number, address)| (format!("rebind{number}.org"), vec![*address]))
        .collect();
    let mixed: Vec<Ipv4Addr> = [&closed[..], &[GOOD]].concat();
    let mut table: Vec<(&str, &[Ipv4Addr])> = known.iter().map(|(n, a)| (&**n, &**a)).collect();
    table.push(("mixed.org", &mixed));
    names(&table);
    egress.open(SLOT, &["*"]);
    for (name, _) in &known {
        assert_eq!(exchange(SLOT, &hello(name)), ACCESS_DENIED, "{name}");
    }
    carried(SLOT, "mixed.org");
    for address in &closed {
        assert!(seen.at(*address).is_empty(), "{address}");
        // Control: this process could reach it.
        let mut direct = TcpStream::connect((*address, 443)).unwrap();
        say(&mut direct, b"control");
    }
}

#[test]
fn a_range_that_the_operator_opens_is_reached_by_name() {
    if !enabled() {
        return;
    }
    let egress = start(EgressConfig {
        opened: vec![
            "10.9.8.0/24".parse().unwrap(),
            "203.0.113.0/24".parse().unwrap(),
        ],
        ..config()
    });
    outside();
    names(&[
        ("inside.org", &[[10, 9, 8, 7].into()]),
        ("host.org", &[[203, 0, 113, 1].into()]),
    ]);
    egress.open(SLOT, &["*"]);
    carried(SLOT, "inside.org");
    assert_eq!(
        exchange(SLOT, &hello("host.org")),
        ACCESS_DENIED,
        "the host itself"
    );
}

#[test]
fn an_answer_that_changes_after_the_look_changes_nothing() {
    if !enabled() {
        return;
    }
    let egress = start(EgressConfig {
        lookup_kept: Duration::ZERO,
        ..config()
    });
    let seen = outside();
    // Harmless to whoever asks first, the metadata service to whoever asks again.
    let times = Mutex::new(0);
    name_server(FIRST, move |question| {
        let mut times = times.lock().unwrap();
        *times += 1;
        let address = if *times == 1 {
            GOOD
        } else {
            [169, 254, 169, 254].into()
        };
        vec![answer_all(question, &[address])]
    });
    egress.open(SLOT, &["rebind.org"]);
    let mut first = carried(SLOT, "rebind.org");
    assert_eq!(exchange(SLOT, &hello("rebind.org")), ACCESS_DENIED);
    say(&mut first, b"still with the first");
    assert!(seen.at([169, 254, 169, 254].into()).is_empty());
}

#[test]
fn failures_are_told_apart_from_refusals() {
    if !enabled() {
        return;
    }
    let egress = start(EgressConfig {
        dial_timeout: Duration::from_millis(200),
        ..config()
    });
    outside();
    names(&[("silent.org", &[[203, 0, 113, 77].into()])]);
    egress.open(SLOT, &["*.org"]);
    for name in ["unknown.org", "silent.org"] {
        assert_eq!(exchange(SLOT, &hello(name)), INTERNAL_ERROR, "{name}");
    }
}

#[test]
fn a_new_policy_ends_what_it_forbids() {
    if !enabled() {
        return;
    }
    let egress = start(config());
    outside();
    names(&[("good.org", &[GOOD]), ("other.org", &[EVIL])]);
    egress.open(SLOT, &["good.org", "other.org"]);
    egress.open(OTHER_SLOT, &["other.org"]);
    let (mut kept, mut cut) = (carried(SLOT, "good.org"), carried(SLOT, "other.org"));
    let mut theirs = carried(OTHER_SLOT, "other.org");
    let mut undecided = connect_to(SLOT, TLS);
    egress.open(SLOT, &["*.org", "x.other.org"]);
    say(&mut kept, b"opened by another entry");
    say(&mut cut, b"here too");
    egress.open(SLOT, &["good.org"]);
    check_ended(&mut cut);
    say(&mut kept, b"still open");
    say(&mut theirs, b"another slot's");
    // Whoever uses the slot next, under whatever policy, has none of these.
    egress.forget(SLOT);
    egress.open(SLOT, &["good.org"]);
    check_ended(&mut kept);
    check_ended(&mut undecided);
    say(&mut theirs, b"another slot's");
    say(&mut carried(SLOT, "good.org"), b"a new one");
}

#[test]
fn slow_and_idle_connections_end_and_places_are_bounded() {
    if !enabled() {
        return;
    }
    let egress = start(EgressConfig {
        proxied_per_slot_max: 2,
        proxied_max: 3,
        head_timeout: Duration::from_millis(300),
        proxied_idle_timeout: Duration::from_millis(900),
        ..config()
    });
    outside();
    names(&[("good.org", &[GOOD])]);
    egress.open(SLOT, &["good.org"]);
    egress.open(OTHER_SLOT, &["good.org"]);
    let mut slow = connect_to(SLOT, TLS);
    slow.write_all(&hello("good.org")[..20]).unwrap();
    let mut busy = carried(SLOT, "good.org");
    assert_eq!(
        exchange(SLOT, &hello("good.org")),
        b"",
        "one too many of the slot"
    );
    check_ended(&mut slow);
    let mut idle = carried(SLOT, "good.org");
    let _third = carried(OTHER_SLOT, "good.org");
    assert_eq!(
        exchange(OTHER_SLOT, &hello("good.org")),
        b"",
        "one too many of all"
    );
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1300) {
        say(&mut busy, b"tick");
        thread::sleep(Duration::from_millis(100));
    }
    check_ended(&mut idle);
    say(&mut busy, b"still");
    say(&mut carried(SLOT, "good.org"), b"places come back");
}
