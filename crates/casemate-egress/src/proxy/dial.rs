//! From a name to a connection: looked up here, checked here, and nothing but what was checked is
//! connected to. So a name that changes its answer in between gains nothing.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;

use casemate_types::network::{DomainName, is_closed};
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Caller, Refused};
use crate::SlotPolicy;

/// As many addresses of a name are tried.
const TRIES_MAX: usize = 4;
/// The host's ends of all slots of all instances begin with this.
const SLOT_LINK_PREFIX: &str = "cm";

impl Caller {
    /// The slot's policy, if it opens the name after all that the node has said by now.
    pub(super) fn policy_for(&self, name: &DomainName) -> Result<Rc<SlotPolicy>, Refused> {
        let current = self.resolver.control().slot(self.ip);
        let policy = self.slot.policy();
        if current.is_some_and(|slot| Rc::ptr_eq(&slot, &self.slot)) && policy.opens(name) {
            Ok(policy)
        } else {
            Err(Refused::NotAllowed)
        }
    }

    /// A connection to a name that the policy opens.
    pub(super) async fn dial(
        &self,
        policy: &SlotPolicy,
        name: &DomainName,
        port: u16,
    ) -> Result<TcpStream, Refused> {
        let kept = self.resolver.config().lookup_kept;
        let look = self.resolver.addresses(self.ip, policy, name);
        let found = self.slot.lookups.get(name, kept, look).await;
        if found.is_empty() {
            return Err(Refused::Unknown);
        }
        let config = self.resolver.config();
        let mut open = found
            .into_iter()
            .filter(|address| is_open(*address, &config.opened))
            .take(TRIES_MAX)
            .peekable();
        if open.peek().is_none() {
            return Err(Refused::Closed);
        }
        for address in open {
            let to = SocketAddr::from((address, port));
            match timeout(config.dial_timeout, TcpStream::connect(to)).await {
                Ok(Ok(stream)) => {
                    // Failing to set it costs some milliseconds a message.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => tracing::debug!(%to, %error, "a proxied name refuses"),
                Err(_) => tracing::debug!(%to, "a proxied name does not answer in time"),
            }
        }
        Err(Refused::Unreachable)
    }
}

/// Whether a sandbox may be connected to this address. This process stands on the host's network,
/// where more can be reached than from a slot: the host itself and the slots, which the packet
/// filter closes in every range.
fn is_open(address: Ipv4Addr, opened: &[IpNet]) -> bool {
    if is_closed(address, opened) || is_of_host(address).unwrap_or(true) {
        return false;
    }
    // Slots are in a closed range: only where the operator opened one is there more to look at.
    !is_closed(address, &[]) || !is_slot(address).unwrap_or(true)
}

/// The kernel sends to an address of its own from that same address. Asking it so needs no right
/// and no packet.
fn is_of_host(address: Ipv4Addr) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((address, 9))?;
    Ok(socket.local_addr()?.ip() == address)
}

/// Whether the host has a route of a slot for exactly this address.
fn is_slot(address: Ipv4Addr) -> io::Result<bool> {
    Ok(has_slot_route(
        &fs::read_to_string("/proc/net/route")?,
        address,
    ))
}

/// Lines of the kernel: link, destination, gateway, flags, …, the mask eighth; addresses in
/// hexadecimal, in the order of the machine's bytes.
fn has_slot_route(routes: &str, address: Ipv4Addr) -> bool {
    let destination = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    routes.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        words
            .next()
            .is_some_and(|link| link.starts_with(SLOT_LINK_PREFIX))
            && words.next() == Some(&destination)
            && words.nth(5) == Some("FFFFFFFF")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_addresses_are_no_targets() {
        for closed in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
        ] {
            assert!(!is_open(closed.parse().unwrap(), &[]), "{closed}");
        }
        let opened = ["127.0.0.0/8".parse().unwrap()];
        let host = Ipv4Addr::LOCALHOST;
        assert!(
            !is_open(host, &opened),
            "the host stays closed in opened ranges"
        );
        assert_eq!(is_of_host(host).ok(), Some(true));
    }

    #[test]
    fn routes_of_slots_are_known_by_their_links() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                      eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                      cmab12cd-1\t02004064\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n\
                      eth0\t03004064\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n";
        let slot = |last| has_slot_route(routes, [100, 64, 0, last].into());
        assert!(slot(2));
        assert!(!slot(3), "of another link");
        assert!(!slot(4));
    }
}
