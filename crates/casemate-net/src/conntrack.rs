//! Tracked connections of an address. A slot's next user must not inherit those of the last: what
//! the other ends still send would be handed to whoever binds the same port.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

use rustix::io::Errno;

use crate::netlink::{Attr, Message, Socket, attrs, flag};

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
/// `nfgenmsg` of IPv4.
const HEADER: [u8; 4] = [2, 0, 0, 0];

/// The direction from who began the connection, as nested attributes.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_IP: u16 = 1;
const IP_SOURCE: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;

/// The addresses that have begun connections which are still tracked.
pub(crate) fn sources(socket: &mut Socket) -> io::Result<BTreeSet<Ipv4Addr>> {
    let all = socket.dump(&Message::new(GET, flag::DUMP, &HEADER), |body| {
        let original = attrs(body.get(4..)?).find(|a| a.kind == TUPLE_ORIGINAL)?;
        source(&original)
    })?;
    Ok(all.into_iter().collect())
}

/// Forgets the connections that any of these addresses began. The kernel walks its whole table for
/// a dump, a millisecond or more even when it is empty: so one dump for all of them, unfiltered.
pub(crate) fn forget(socket: &mut Socket, addresses: &BTreeSet<Ipv4Addr>) -> io::Result<()> {
    let all = Message::new(GET, flag::DUMP, &HEADER);
    let doomed = socket.dump(&all, |body| {
        let found: Vec<Attr<'_>> = attrs(body.get(4..)?).collect();
        let original = found.iter().find(|a| a.kind == TUPLE_ORIGINAL)?;
        if !addresses.contains(&source(original)?) {
            return None;
        }
        let mut message = Message::new(DELETE, 0, &HEADER);
        message.nest(TUPLE_ORIGINAL, |tuple| {
            tuple.raw(original.value);
        });
        // The id makes sure that it is this connection and not a later one of the same ports.
        for attr in found.iter().filter(|a| matches!(a.kind, ID | ZONE)) {
            message.attr(attr.kind, attr.value);
        }
        Some(message)
    })?;
    for message in doomed {
        match socket.request(vec![message]) {
            // It ended by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            result => result?,
        }
    }
    Ok(())
}

fn source(original: &Attr<'_>) -> Option<Ipv4Addr> {
    let ip = attrs(original.value).find(|a| a.kind == TUPLE_IP)?;
    attrs(ip.value).find(|a| a.kind == IP_SOURCE)?.ipv4()
}
