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
    match ip.to_canonical() {
        ip if ip.is_loopback() => None,
        IpAddr::V6(ip) => {
            let network = ip.to_bits() & !u128::from(u64::MAX);
            Some(Ipv6Addr::from_bits(network).into())
        }
        ip => Some(ip),
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
    }
}
