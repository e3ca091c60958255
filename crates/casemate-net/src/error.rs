//! What can go wrong, named for what was being done.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

/// Why the network of an instance or of one slot could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("slot subnet {subnet} must be between /{longest} and /{shortest} in size", longest = crate::Subnet::PREFIX_MIN, shortest = crate::Subnet::PREFIX_MAX)]
    SubnetSize { subnet: Ipv4Net },
    #[error("slot subnet {subnet} overlaps the host's route {route} on {link}")]
    RouteConflict {
        subnet: Ipv4Net,
        route: Ipv4Net,
        link: String,
    },
    #[error("range {0} cannot be opened: slots have no IPv6")]
    RangeIsIpv6(IpNet),
    #[error("slot {index} does not exist: the subnet has slots 0 to {last}")]
    IndexBeyond { index: u16, last: u16 },
    /// Something still holds the network namespace of the slot's former use.
    #[error("slot {index} is still held: link {link} exists")]
    SlotBusy { index: u16, link: String },
    #[error("the network namespace given for slot {index} is not that slot's: {reason}")]
    NotThisSlot { index: u16, reason: &'static str },
    #[error("{action}")]
    Netlink {
        action: String,
        #[source]
        source: io::Error,
    },
    #[error("make a network namespace")]
    Netns {
        #[source]
        source: io::Error,
    },
    #[error("set {path}", path = path.display())]
    Sysctl {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("run {program}: is it installed?")]
    ToolMissing {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{program} refused: {message}")]
    ToolFailed {
        program: &'static str,
        message: String,
    },
    #[error("{path}", path = path.display())]
    State {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("listen on {address}:53 for the slots: does another resolver hold port 53?")]
    DnsSocket {
        address: Ipv4Addr,
        #[source]
        source: io::Error,
    },
    #[error("listen on {address}:{port} for the slots: does another program hold that port?")]
    ProxySocket {
        address: Ipv4Addr,
        port: u16,
        #[source]
        source: io::Error,
    },
}

impl NetError {
    /// Whether the same call may work a little later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::SlotBusy { .. })
    }

    pub(crate) fn netlink(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Netlink { action, source }
    }
}
