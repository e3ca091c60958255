//! HTTP by the host that each request names.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use casemate_egress::EgressConfig;

use crate::outside::{EVIL, GOOD, Seen, contains, names, outside};
use crate::world::{Egress, HTTP, SLOT, config, connect_to, enabled, start};

/// A world in which one name may be asked and another one may not.
fn world() -> (Egress, Seen) {
    let egress = start(EgressConfig {
        head_timeout: Duration::from_millis(500),
        ..config()
    });
    let seen = outside();
    names(&[
        ("good.org", &[GOOD]),
        ("www.open.org", &[GOOD]),
        ("open.org", &[EVIL]),
        ("evil.net", &[EVIL]),
        ("metadata.good.org", &[[169, 254, 169, 254].into()]),
    ]);
    egress.open(SLOT, &["good.org", "*.open.org", "metadata.good.org"]);
    (egress, seen)
}

/// Sends, and hears all that comes back.
fn exchange(bytes: &[u8]) -> String {
    let mut stream = connect_to(SLOT, HTTP);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    String::from_utf8_lossy(&heard).into_owned()
}

/// The status codes of all answers.
fn statuses(heard: &str) -> Vec<&str> {
    let heads = heard.split("HTTP/1.").skip(1);
    heads.filter_map(|head| head.split(' ').nth(1)).collect()
}

fn get(host: &str) -> String {
    format!("GET /a?b=c HTTP/1.1\r\nHost: {host}\r\nX-Own: kept\r\n\r\n")
}

/// One answer on a connection that stays open.
fn answer(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let mut byte = [0; 1];
    while !heard.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        heard.push(byte[0]);
    }
    let head = String::from_utf8(heard).unwrap();
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).map_or(0, |rest| {
        rest.split("\r\n").next().unwrap().parse().unwrap()
    });
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[test]
fn requests_go_to_what_the_host_is() {
    if !enabled() {
        return;
    }
    let (_egress, seen) = world();
    let mut stream = connect_to(SLOT, HTTP);
    for host in ["good.org", "GOOD.org:80", "www.open.org"] {
        stream.write_all(get(host).as_bytes()).unwrap();
        let heard = answer(&mut stream);
        assert!(heard.ends_with(&GOOD.to_string()), "{host}: {heard}");
    }
    let heard = seen.text_at(GOOD);
    assert_eq!(
        heard.matches("GET /a?b=c HTTP/1.1\r\nHost: ").count(),
        3,
        "{heard}"
    );
    assert_eq!(heard.matches("X-Own: kept\r\n").count(), 3);
    let absolute = "GET http://good.org/far HTTP/1.1\r\nHost: good.org\r\n\r\n";
    assert_eq!(statuses(&exchange(absolute.as_bytes())), ["200"]);
    seen.wait(GOOD, b"GET /far HTTP/1.1\r\n");
    let old = "GET /old HTTP/1.0\r\nHost: good.org\r\n\r\n";
    assert_eq!(statuses(&exchange(old.as_bytes())), ["200"]);
    let post = "POST /p HTTP/1.1\r\nHost: good.org\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(statuses(&exchange(post.as_bytes())), ["200"]);
    seen.wait(GOOD, b"\r\n\r\nhello");
    let chunked = "POST /c HTTP/1.1\r\nHost: good.org\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(statuses(&exchange(chunked.as_bytes())), ["200"]);
    seen.wait(GOOD, b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
}

#[test]
fn other_hosts_are_refused() {
    if !enabled() {
        return;
    }
    let (egress, seen) = world();
    let host = |host: &str| get(host);
    let attacks = [
        ("another host", host("evil.net"), "403"),
        ("the apex of a wildcard", host("open.org"), "403"),
        (
            "a name that leads to the metadata service",
            host("metadata.good.org"),
            "403",
        ),
        ("a name that nobody knows", host("unknown.open.org"), "502"),
        ("an address", host("198.51.100.66"), "400"),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into(), "400"),
        (
            "two hosts",
            "GET / HTTP/1.1\r\nHost: good.org\r\nHost: evil.net\r\n\r\n".into(),
            "400",
        ),
        (
            "a host with a space before its colon",
            "GET / HTTP/1.1\r\nHost : evil.net\r\n\r\n".into(),
            "400",
        ),
        (
            "a folded host",
            "GET / HTTP/1.1\r\nHost:\r\n evil.net\r\n\r\n".into(),
            "400",
        ),
        (
            "an address that is not the host's",
            "GET http://evil.net/ HTTP/1.1\r\nHost: good.org\r\n\r\n".into(),
            "400",
        ),
        (
            "a host that is not the address's",
            "GET http://good.org/ HTTP/1.1\r\nHost: evil.net\r\n\r\n".into(),
            "400",
        ),
        (
            "a user before the host",
            "GET http://good.org@evil.net/ HTTP/1.1\r\nHost: good.org@evil.net\r\n\r\n".into(),
            "400",
        ),
        (
            "a tunnel",
            "CONNECT good.org:80 HTTP/1.1\r\nHost: good.org\r\n\r\n".into(),
            "400",
        ),
        (
            "a head that is too large",
            format!(
                "GET / HTTP/1.1\r\nHost: good.org\r\nX: {}\r\n\r\n",
                "a".repeat(20_000)
            ),
            "431",
        ),
    ];
    for (what, request, status) in attacks {
        assert_eq!(statuses(&exchange(request.as_bytes())), [status], "{what}");
    }
    for (what, bytes) in [
        ("HTTP/2", &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]),
        ("TLS", &[22, 3, 1, 0, 200, 1, 0, 0, 196]),
    ] {
        let heard = exchange(bytes);
        assert!(
            statuses(&heard).iter().all(|status| *status == "400"),
            "{what}: {heard}"
        );
    }
    assert!(seen.at(EVIL).is_empty());
    assert!(seen.at(GOOD).is_empty(), "{}", seen.text_at(GOOD));
    egress.open(SLOT, &["*"]);
    for host in ["evil.net", "open.org"] {
        let heard = exchange(get(host).as_bytes());
        assert!(heard.ends_with(&EVIL.to_string()), "control: {heard}");
    }
}

#[test]
fn every_request_of_a_connection_is_judged() {
    if !enabled() {
        return;
    }
    let (_egress, seen) = world();
    let mut stream = connect_to(SLOT, HTTP);
    stream.write_all(get("good.org").as_bytes()).unwrap();
    assert!(answer(&mut stream).contains(" 200 "));
    stream.write_all(get("evil.net").as_bytes()).unwrap();
    let refused = answer(&mut stream);
    assert!(
        refused.contains(" 403 ") && refused.contains("'evil.net' is not in"),
        "{refused}"
    );
    let pipelined = [get("good.org"), get("evil.net"), get("good.org")].concat();
    assert_eq!(statuses(&exchange(pipelined.as_bytes())), ["200", "403"]);
    assert!(seen.at(EVIL).is_empty());
    // To the server that was allowed, no more than was allowed came.
    let heard = seen.text_at(GOOD);
    assert_eq!(heard.matches("GET ").count(), 2, "{heard}");
    assert!(!heard.contains("evil"), "{heard}");
}

#[test]
fn no_request_hides_in_another() {
    if !enabled() {
        return;
    }
    let (_egress, seen) = world();
    let hidden = "GET /hidden HTTP/1.1\r\nHost: evil.net\r\n\r\n";
    let post = |fields: &str, body: &str| {
        format!("POST /p HTTP/1.1\r\nHost: good.org\r\n{fields}\r\n{body}")
    };
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let length = format!("Content-Length: {}\r\n", hidden.len());
    // What follows a body is another request, and judged.
    let after = post("X: y\r\n", hidden);
    assert_eq!(statuses(&exchange(after.as_bytes())), ["200", "403"]);
    let after = post(
        "Transfer-Encoding: chunked\r\n",
        &format!("0\r\n\r\n{hidden}"),
    );
    assert_eq!(statuses(&exchange(after.as_bytes())), ["200", "403"]);
    assert!(!seen.text_at(GOOD).contains("hidden"));
    // Of two lengths the server is told one, the standard's.
    for both in [
        format!("{length}Transfer-Encoding: chunked\r\n"),
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".into(),
    ] {
        exchange(post(&both, "0\r\n\r\n").as_bytes());
        assert!(!seen.text_at(GOOD).to_lowercase().contains("content-length"));
    }
    // Lengths that not everybody reads alike.
    for fields in [
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: 0, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "X: a\r\n Transfer-Encoding: chunked\r\n",
    ] {
        let heard = exchange(post(fields, &chunk).as_bytes());
        let first = statuses(&heard)[0].to_owned();
        assert!(["400", "501"].contains(&&*first), "{fields}: {heard}");
    }
    assert!(
        !seen.text_at(GOOD).contains("hidden"),
        "{}",
        seen.text_at(GOOD)
    );
    // A body may say what it likes; its length is what the server is told, and its connection ends.
    exchange(post(&length, hidden).as_bytes());
    exchange(format!("GET / HTTP/1.1\r\nHost: good.org\r\n{length}\r\n{hidden}").as_bytes());
    exchange(post("Transfer-Encoding: chunked\r\n", &chunk).as_bytes());
    let heard = seen.text_at(GOOD);
    assert_eq!(heard.matches("/hidden").count(), 3, "{heard}");
    assert_eq!(heard.matches(&*length).count(), 2, "{heard}");
    assert_eq!(
        heard.matches("onnection: close\r\n").count(),
        heard.matches("Host: good.org").count()
    );
    assert!(seen.at(EVIL).is_empty());
}

#[test]
fn only_websockets_are_upgraded() {
    if !enabled() {
        return;
    }
    let (egress, seen) = world();
    let upgrade = |what: &str| {
        format!(
            "GET /ws HTTP/1.1\r\nHost: good.org\r\nConnection: Upgrade\r\nUpgrade: {what}\r\n\r\n"
        )
    };
    let mut stream = connect_to(SLOT, HTTP);
    stream.write_all(upgrade("websocket").as_bytes()).unwrap();
    assert!(answer(&mut stream).starts_with("HTTP/1.1 101 "));
    for _ in 0..2 {
        stream.write_all(b"frame").unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"frame");
    }
    let mut other = connect_to(SLOT, HTTP);
    other.write_all(upgrade("h2c").as_bytes()).unwrap();
    assert!(answer(&mut other).starts_with("HTTP/1.1 200 "));
    other.write_all(get("evil.net").as_bytes()).unwrap();
    assert!(answer(&mut other).contains(" 403 "));
    assert!(!seen.text_at(GOOD).contains("h2c"));
    assert!(seen.at(EVIL).is_empty());
    egress.open(SLOT, &["www.open.org"]);
    let began = Instant::now();
    assert!(
        matches!(stream.read(&mut [0; 5]), Ok(0) | Err(_)),
        "ended by a new policy"
    );
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_server_that_never_answers_in_earnest_is_cut_off() {
    if !enabled() {
        return;
    }
    let (_egress, _seen) = world();
    let get = |hints: usize| {
        let request = format!("GET /hints/{hints} HTTP/1.1\r\nHost: good.org\r\n\r\n");
        exchange(request.as_bytes())
    };
    let heard = get(100);
    assert_eq!(statuses(&heard), ["200"], "{heard}");
    for too_many in [101, usize::MAX] {
        let heard = get(too_many);
        assert_eq!(statuses(&heard), ["502"], "{too_many}: {heard}");
    }
}

#[test]
fn slow_heads_and_silent_clients_are_closed() {
    if !enabled() {
        return;
    }
    let (_egress, seen) = world();
    let mut slow = connect_to(SLOT, HTTP);
    let mut silent = connect_to(SLOT, HTTP);
    let mut kept = connect_to(SLOT, HTTP);
    kept.write_all(get("good.org").as_bytes()).unwrap();
    answer(&mut kept);
    let began = Instant::now();
    for byte in get("good.org").as_bytes() {
        if slow.write_all(&[*byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(30));
    }
    assert!(began.elapsed() < Duration::from_secs(3));
    for stream in [&mut slow, &mut silent, &mut kept] {
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert!(!contains(&heard, b" 200 "));
    }
    assert_eq!(seen.text_at(GOOD).matches("GET ").count(), 1);
}

/// Requests that are a little wrong, in a thousand ways: whatever is let through names an open host.
#[test]
fn no_bytes_lead_to_another_host() {
    if !enabled() {
        return;
    }
    let (_egress, seen) = world();
    // A small generator with a fixed seed: the same requests in every run.
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let pieces: [&[u8]; 20] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"Host: evil.net\r\n",
        b"evil.net",
        b"good.org",
        b"GET http://evil.net/ HTTP/1.1\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
        b"\xff",
        b",",
        b"@",
        b"#",
        b"http://",
        b"HTTP/1.0",
    ];
    let mut passed = 0;
    for round in 0..1500 {
        let mut bytes = if round % 2 == 0 {
            get("good.org").into_bytes()
        } else {
            let body = get("evil.net");
            format!(
                "POST /p HTTP/1.1\r\nHost: good.org\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        };
        for _ in 0..=random()[0] % 3 {
            let [a, b, piece, kind, ..] = random();
            let at = usize::from(u16::from_be_bytes([a, b])) % bytes.len();
            let piece = pieces[usize::from(piece) % pieces.len()];
            let removed = usize::from(kind % 4) * 2;
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, piece.iter().copied());
        }
        passed += usize::from(statuses(&exchange(&bytes)).contains(&"200"));
    }
    assert!(passed > 100, "{passed}");
    assert!(seen.at(EVIL).is_empty(), "{}", seen.text_at(EVIL));
    for connection in seen.connections(GOOD) {
        let text = String::from_utf8_lossy(&connection).to_lowercase();
        let head = text.split("\r\n\r\n").next().unwrap();
        let hosts: Vec<&str> = head
            .lines()
            .filter(|line| line.starts_with("host:"))
            .collect();
        assert!(hosts.len() == 1 && hosts[0].contains("good.org"), "{head}");
        assert!(head.contains("\r\nconnection: close"), "{head}");
    }
}
