//! Connections that are judged by name: takes what the packet filter turned here, finds the name in
//! its first bytes, connects to what that name really is, and passes the bytes on.
//!
//! Where the sandbox wanted the connection to go is not looked at: a false entry in its
//! `/etc/hosts` leads to the name's real address all the same. TLS is not ended here: the name in
//! its hello decides, and what is asked for inside cannot be seen.

mod dial;
mod hello;
mod http;
mod tls;
mod watched;

use std::net::Ipv4Addr;
use std::rc::Rc;

use crate::control::Slot;
use crate::gate::Pass;
use crate::resolver::Resolver;

pub(crate) use self::http::serve as serve_http;
pub(crate) use self::tls::serve as serve_tls;

/// Room for what is on its way in one direction of a connection, bytes.
const COPY_BYTES: usize = 8 * 1024;

/// Whose connection it is, with its place among all.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) ip: Ipv4Addr,
    pub(crate) slot: Rc<Slot>,
    pub(crate) resolver: Rc<Resolver>,
    pub(crate) _pass: Pass,
}

/// Why a name is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// The slot's policy does not open it.
    NotAllowed,
    /// All its addresses are closed to sandboxes.
    Closed,
    /// No name server knows an IPv4 address.
    Unknown,
    /// None of its addresses accepts a connection.
    Unreachable,
}

impl Refused {
    /// For the sandbox's log or terminal.
    fn words(self) -> &'static str {
        match self {
            Self::NotAllowed => "is not in this sandbox's allowOut",
            Self::Closed => "leads to addresses that sandboxes cannot reach",
            Self::Unknown => "has no IPv4 address that the name servers tell",
            Self::Unreachable => "does not accept connections",
        }
    }
}
