//! Whom to ask: the host's name servers, or a slot's own.

use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant, SystemTime};

use casemate_types::network::is_closed;
use ipnet::IpNet;

use crate::Upstreams;

/// How long a look at `resolv.conf` is believed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// As stub resolvers do: further ones are not asked.
const SERVERS_MAX: usize = 3;

/// The host's name servers as last seen.
#[derive(Debug)]
pub(crate) struct Servers {
    source: Upstreams,
    opened: Vec<IpNet>,
    seen: RefCell<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    looked: Option<Instant>,
    changed: Option<SystemTime>,
    list: Vec<IpAddr>,
}

impl Servers {
    /// `opened`: closed ranges that a slot's own servers may be in.
    pub(crate) fn new(source: Upstreams, opened: Vec<IpNet>) -> Self {
        Self {
            source,
            opened,
            seen: RefCell::default(),
        }
    }

    /// The servers to ask for a slot, in order; `own` are those of its policy.
    pub(crate) fn list(&self, own: &[IpAddr]) -> Vec<IpAddr> {
        if !own.is_empty() {
            let usable = own
                .iter()
                .copied()
                .filter(|server| self.may_be_asked(server));
            return usable.take(SERVERS_MAX).collect();
        }
        match &self.source {
            Upstreams::Fixed(list) => list.iter().copied().take(SERVERS_MAX).collect(),
            Upstreams::ResolvConf(path) => {
                let mut seen = self.seen.borrow_mut();
                if seen.looked.is_none_or(|at| at.elapsed() > LOOK_INTERVAL) {
                    seen.looked = Some(Instant::now());
                    let changed = fs::metadata(path).and_then(|m| m.modified()).ok();
                    if changed != seen.changed || changed.is_none() {
                        seen.changed = changed;
                        // A file that is gone or unreadable for a moment changes nothing.
                        if let Ok(text) = fs::read_to_string(path) {
                            seen.list = parse(&text);
                        }
                    }
                }
                seen.list.clone()
            }
        }
    }

    /// Whether a tenant may have this asked. The process stands on the host's network, where more can
    /// be reached than from a slot.
    fn may_be_asked(&self, server: &IpAddr) -> bool {
        match server.to_canonical() {
            IpAddr::V4(v4) => !is_closed(v4, &self.opened),
            IpAddr::V6(v6) => {
                // Global unicast, and of that nothing that wraps an IPv4 address.
                let [a, b, ..] = v6.segments();
                a & 0xe000 == 0x2000 && a != 0x2002 && (a, b) != (0x2001, 0)
            }
        }
    }
}

/// The `nameserver` lines. Without any the servers are this host's own, as in the C library.
fn parse(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        // A link-local server with its link is left out: `fe80::1%eth0`.
        words.next()?.parse().ok()
    });
    let list: Vec<IpAddr> = named.take(SERVERS_MAX).collect();
    if list.is_empty() {
        vec![Ipv4Addr::LOCALHOST.into()]
    } else {
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_c_library_does() {
        let text = "# nameserver 1.1.1.1\nsearch a.b\nnameserver 10.0.0.53\n nameserver\t9.9.9.9 x\n\
                    nameserver fe80::1%eth0\nnameserver ::1\nnameserver 8.8.8.8\n";
        let expected: [IpAddr; 3] = [
            "10.0.0.53".parse().unwrap(),
            "9.9.9.9".parse().unwrap(),
            "::1".parse().unwrap(),
        ];
        assert_eq!(parse(text), expected);
        assert_eq!(parse(""), [IpAddr::from([127, 0, 0, 1])]);
    }

    fn own_servers(opened: &[&str]) -> Servers {
        let source = Upstreams::Fixed(vec!["10.0.0.53".parse().unwrap()]);
        let opened = opened.iter().map(|range| range.parse().unwrap());
        Servers::new(source, opened.collect())
    }

    #[test]
    fn a_slots_own_servers_are_public_ones() {
        let servers = own_servers(&[]);
        let parse = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(servers.list(&[]), parse(&["10.0.0.53"]));
        let closed = parse(&[
            "10.0.0.53",
            "127.0.0.53",
            "169.254.169.254",
            "100.64.0.1",
            "192.168.1.1",
            "0.0.0.0",
            "224.0.0.251",
            "255.255.255.255",
            "168.63.129.16",
            "192.0.0.192",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "2002:a00:1::1",
        ]);
        assert!(
            servers.list(&closed).is_empty(),
            "{:?}",
            servers.list(&closed)
        );
        let open = parse(&["9.9.9.9", "2620:fe::fe"]);
        assert_eq!(servers.list(&open), open);
        let opened = own_servers(&["10.0.0.53/32"]).list(&closed);
        assert_eq!(opened, parse(&["10.0.0.53"]));
    }

    #[test]
    fn a_changed_file_is_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 1.1.1.1\n").unwrap();
        let servers = Servers::new(Upstreams::ResolvConf(file.path().to_owned()), Vec::new());
        assert_eq!(servers.list(&[]), [IpAddr::from([1, 1, 1, 1])]);
        fs::write(file.path(), "nameserver 2.2.2.2\n").unwrap();
        assert_eq!(
            servers.list(&[]),
            [IpAddr::from([1, 1, 1, 1])],
            "not looked again yet"
        );
        servers.seen.borrow_mut().looked = None;
        servers.seen.borrow_mut().changed = None;
        assert_eq!(servers.list(&[]), [IpAddr::from([2, 2, 2, 2])]);
        fs::remove_file(file.path()).unwrap();
        servers.seen.borrow_mut().looked = None;
        assert_eq!(
            servers.list(&[]),
            [IpAddr::from([2, 2, 2, 2])],
            "kept while it is gone"
        );
    }
}
