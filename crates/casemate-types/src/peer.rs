//! The client's end of a connection.

use std::net::SocketAddr;

/// The address from which a request's connection came. The edge puts it into each request's
/// extensions; handlers behind it (in another crate) take it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);
