//! Which addresses are dialled for a tenant or a registry.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use casemate_types::network::is_closed;

/// The prefix behind which networks without IPv4 show it (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Whether an address is on the public internet, and not this host's own: what listens here for
/// everyone would take us for a neighbour.
pub(super) fn is_open(address: IpAddr) -> bool {
    is_public(address) && !is_of_host(address).unwrap_or(true)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !is_closed(address, &[]),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Global unicast (2000::/3) without what IANA's registry of special addresses takes out of it:
/// protocol assignments with Teredo in 2001::/23, documentation in 2001:db8::/32 and 3fff::/20, 6to4
/// in 2002::/16, which carries any IPv4 address in it. Metadata services of clouds are unique local
/// ones, outside of it.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = inner_v4(address) {
        return !is_closed(inner, &[]);
    }
    let [first, second, ..] = address.segments();
    match first {
        0x2001 => second > 0x01ff && second != 0x0db8,
        0x2002 => false,
        0x3fff => second > 0x0fff,
        _ => first >> 13 == 1,
    }
}

/// The IPv4 address that the kernel or a translator would connect to.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let translated = || {
        let (head, [.., a, b, c, d]) = (address.segments(), address.octets());
        (head[..6] == NAT64).then(|| Ipv4Addr::new(a, b, c, d))
    };
    address.to_ipv4_mapped().or_else(translated)
}

/// The kernel sends to an address of its own from that same address. Asking it so needs no right
/// and no packet. Where there is no way to the address at all, it is not the host's.
fn is_of_host(address: IpAddr) -> io::Result<bool> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = match UdpSocket::bind((any, 0)) {
        // A host without IPv6 reaches nobody by it.
        Err(_) if address.is_ipv6() => return Ok(false),
        bound => bound?,
    };
    match socket.connect(SocketAddr::new(address, 9)) {
        Ok(()) => Ok(socket.local_addr()?.ip() == address),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_ranges_are_closed() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn public_addresses_are_open() {
        for text in [
            "8.8.8.8",
            "2606:4700::1",
            "2001:4860:4860::8888",
            "2a00:1450::1",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_open(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_host_knows_itself() {
        assert_eq!(is_of_host(Ipv4Addr::LOCALHOST.into()).ok(), Some(true));
        assert_eq!(is_of_host([8, 8, 8, 8].into()).ok(), Some(false));
    }
}
