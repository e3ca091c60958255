//! Netlink by hand: messages as bytes, one socket, requests answered one after the other.
//!
//! Owns the wire form and nothing of what messages mean. A socket belongs to the network namespace
//! in which it was opened, whichever thread uses it later; that is how one thread serves the host
//! and a slot. Written here, not taken from a crate, because the few messages needed are less code
//! than the adapters around one, and a slot must cost under a millisecond.

mod message;
mod socket;

pub(crate) use message::{Attr, Message, attrs, flag};
pub(crate) use socket::Socket;
