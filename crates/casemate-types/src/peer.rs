//! The client's end of a connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The address from which a request's connection came. The edge puts it into each request's
/// extensions; handlers behind it (in another crate) take it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// The request's connection came over TLS. The edge puts it beside [`PeerAddr`]; without it links that
/// we hand out begin with `http`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverTls;

/// The address that a client's share of anything is counted under: of IPv6 the network, for one
/// client has all of it; of loopback none, for there a proxy speaks for everybody.
pub fn counted_as(ip: IpAddr) -> Option<IpAddr> {
    match ip.to_canonical().is_loopback() {
        true => None,
        false => Some(network_of(ip)),
    }
}

/// Of IPv6 the network, for one machine has all of it; else the address.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_as_their_clients() {
        let counted = |ip: &str| counted_as(ip.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(counted("127.0.0.1"), None);
        assert_eq!(counted("::1"), None);
        assert_eq!(counted("::ffff:127.0.0.2"), None);
        assert_eq!(counted("192.0.2.1").unwrap(), "192.0.2.1");
        assert_eq!(counted("::ffff:192.0.2.1").unwrap(), "192.0.2.1");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6").unwrap(), "2001:db8:1:2::");
        let network = |ip: &str| network_of(ip.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:127.0.0.2"), "127.0.0.2");
    }
}
