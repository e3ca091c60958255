//! Links, addresses and routes of one network namespace, over a route socket opened in it.
//!
//! Knows the kernel's messages and what a slot's links look like; not which slots exist or why.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::Ipv4Net;
use rustix::net::netdevice::name_to_index;

use crate::netlink::{Attr, Message, Socket, attrs, flag};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const GETSTATS: u16 = 94;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 0x1;
/// Set by the kernel once a link that is up really sends.
const IFF_RUNNING: u32 = 0x40;
const IFF_NOARP: u32 = 0x80;
const TABLE_MAIN: u8 = 254;
const PROTO_STATIC: u8 = 4;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const ROUTE_UNICAST: u8 = 1;
const ROUTE_ONLINK: u32 = 4;

const FORWARDING: u16 = 1;
const ACCEPT_REDIRECTS: u16 = 4;
const SEND_REDIRECTS: u16 = 6;

/// The index of the loopback link in every namespace.
const LOOPBACK: u32 = 1;
/// The slot's link in its own namespace.
const SLOT_LINK_NAME: &str = "eth0";
/// Both ends of every slot have the same hardware address and no ARP: each packet's destination is
/// then its sender's own address, which is the receiver's too. So nothing is looked up, nothing can
/// be poisoned, a host's `arp_ignore` does not matter, and a thousand slots do not fill the
/// neighbour table, whose usual bound is 1024 for all namespaces together.
const HARDWARE_ADDRESS: [u8; 6] = [0x02, 0x63, 0x6d, 0x00, 0x00, 0x01];

/// A slot's link as seen from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotLink {
    pub name: &'static str,
    pub hardware_address: [u8; 6],
    pub mtu: u32,
}

impl SlotLink {
    pub(crate) fn new(mtu: u32) -> Self {
        Self {
            name: SLOT_LINK_NAME,
            hardware_address: HARDWARE_ADDRESS,
            mtu,
        }
    }
}

/// A link as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) group: u32,
}

/// An IPv4 route as listed, of any table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: Ipv4Net,
    pub(crate) link: Option<u32>,
    pub(crate) priority: u32,
    pub(crate) table: u8,
}

impl Route {
    pub(crate) fn is_default(&self) -> bool {
        self.to.prefix_len() == 0 && self.table == TABLE_MAIN
    }
}

/// Makes the pair of links of a slot: `host_name` here, the other end in `netns`, both down
/// (an end cannot be up before the pair is complete).
pub(crate) fn slot_pair_create(
    socket: &mut Socket,
    host_name: &str,
    mtu: u32,
    netns: BorrowedFd<'_>,
) -> io::Result<()> {
    let fd = u32::try_from(netns.as_raw_fd()).expect("a descriptor is not negative");
    let mut message = Message::new(
        NEWLINK,
        flag::CREATE | flag::EXCL,
        &link_header(0, IFF_NOARP, IFF_NOARP),
    );
    link_attrs(&mut message, host_name, mtu);
    message.nest(18, |info| {
        info.attr_text(1, "veth").nest(2, |data| {
            data.nest(1, |peer| {
                peer.raw(&link_header(0, IFF_NOARP, IFF_NOARP));
                link_attrs(peer, SLOT_LINK_NAME, mtu);
                peer.attr_u32(28, fd);
            });
        });
    });
    socket.request(vec![message])
}

fn link_attrs(message: &mut Message, name: &str, mtu: u32) {
    message
        .attr(1, &HARDWARE_ADDRESS)
        .attr_text(3, name)
        .attr_u32(4, mtu)
        // One queue: by default there is one for each processor, and its memory with it.
        .attr_u32(31, 1)
        .attr_u32(32, 1);
}

/// Takes the host's end up and routes the slot's address over it. `gateway` becomes the host's
/// source address towards the slot.
pub(crate) fn slot_host_up(
    socket: &mut Socket,
    link: u32,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
) -> io::Result<()> {
    let mut up = Message::new(NEWLINK, 0, &link_header(link, IFF_UP, IFF_UP));
    inet_settings(&mut up, &[(ACCEPT_REDIRECTS, 0), (SEND_REDIRECTS, 0)]);
    let mut route = Message::new(
        NEWROUTE,
        flag::CREATE | flag::EXCL,
        &route_header(32, SCOPE_LINK, 0),
    );
    route
        .attr(1, &address.octets())
        .attr_u32(4, link)
        .attr(7, &gateway.octets());
    socket.request(vec![up, route])
}

/// Keeps IPv6 from giving a link an address by itself; to be called while it is down. No error
/// where the kernel has no IPv6.
///
/// Not by writing `disable_ipv6`: while somebody else changes links, the kernel lets such a write
/// begin again and again instead of waiting.
pub(crate) fn ipv6_no_address(socket: &mut Socket, link: u32) -> io::Result<()> {
    const AF_INET6: u16 = 10;
    const ADDR_GEN_MODE: u16 = 8;
    const MODE_NONE: u8 = 1;
    let mut message = Message::new(NEWLINK, 0, &link_header(link, 0, 0));
    message.nest(26, |families| {
        families.nest(AF_INET6, |inet6| {
            inet6.attr(ADDR_GEN_MODE, &[MODE_NONE]);
        });
    });
    unless(
        socket.request(vec![message]),
        rustix::io::Errno::AFNOSUPPORT,
    )
}

/// Settings of IPv4 on one link (`IPV4_DEVCONF_*`), as part of a message about it.
fn inet_settings(message: &mut Message, settings: &[(u16, u32)]) {
    message.nest(26, |families| {
        families.nest(u16::from(AF_INET), |inet| {
            inet.nest(1, |conf| {
                for (setting, value) in settings {
                    conf.attr_u32(*setting, *value);
                }
            });
        });
    });
}

/// Gives the slot's own namespace its loopback, its address and its way out.
pub(crate) fn slot_inside_up(
    socket: &mut Socket,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
) -> io::Result<()> {
    let eth0 = name_to_index(&*socket, SLOT_LINK_NAME)?;
    // A new namespace takes over that the host forwards.
    let up = |link| {
        let mut up = Message::new(NEWLINK, 0, &link_header(link, IFF_UP, IFF_UP));
        inet_settings(&mut up, &[(FORWARDING, 0)]);
        up
    };
    let (loopback, up) = (up(LOOPBACK), up(eth0));
    let own = address_message(NEWADDR, address, eth0, SCOPE_UNIVERSE);
    let mut route = Message::new(
        NEWROUTE,
        flag::CREATE | flag::EXCL,
        &route_header(0, SCOPE_UNIVERSE, ROUTE_ONLINK),
    );
    route.attr(5, &gateway.octets()).attr_u32(4, eth0);
    socket.request(vec![loopback, up, own, route])
}

/// Whether the namespace of the socket is that of the slot with this address.
pub(crate) fn slot_inside_has(socket: &mut Socket, address: Ipv4Addr) -> io::Result<bool> {
    let message = Message::new(GETADDR, flag::DUMP, &[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
    let found = socket.dump(&message, |body| {
        attrs(body.get(8..)?).find(|a| a.kind == 2)?.ipv4()
    })?;
    Ok(found.contains(&address))
}

/// Puts the gateway's address on the loopback link. It is local on every link, and its host scope
/// keeps the kernel from choosing it as a source towards anybody but a slot. Being there already
/// is no error.
pub(crate) fn gateway_add(socket: &mut Socket, gateway: Ipv4Addr, label: &str) -> io::Result<()> {
    let mut message = address_message(NEWADDR, gateway, LOOPBACK, SCOPE_HOST);
    message.attr_text(3, label);
    unless(socket.request(vec![message]), rustix::io::Errno::EXIST)
}

/// Takes the gateway's address away. Being gone already is no error.
pub(crate) fn gateway_delete(socket: &mut Socket, gateway: Ipv4Addr) -> io::Result<()> {
    let message = address_message(DELADDR, gateway, LOOPBACK, SCOPE_HOST);
    unless(
        socket.request(vec![message]),
        rustix::io::Errno::ADDRNOTAVAIL,
    )
}

pub(crate) fn link_index(socket: &Socket, name: &str) -> io::Result<Option<u32>> {
    match name_to_index(socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a link passes packets. Being up is not enough: the first end of a pair to be taken up is
/// activated later, by the kernel's own worker, and drops what is sent until then.
pub(crate) fn link_running(socket: &mut Socket, index: u32) -> io::Result<bool> {
    let message = Message::new(GETLINK, 0, &link_header(index, 0, 0));
    let flags = socket.get(message, |body| {
        Some(u32::from_ne_bytes(body.get(8..12)?.try_into().ok()?))
    })?;
    Ok(flags.is_some_and(|flags| flags & IFF_RUNNING != 0))
}

/// How many packets came in over a link.
pub(crate) fn link_received(socket: &mut Socket, index: u32) -> io::Result<Option<u64>> {
    /// `rtnl_link_stats64`, which begins with the packets received.
    const LINK_64: u16 = 1;
    // `if_stats_msg`
    let mut header = [0; 12];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..].copy_from_slice(&(1_u32 << (LINK_64 - 1)).to_ne_bytes());
    socket.get(Message::new(GETSTATS, 0, &header), |body| {
        let stats = attrs(body.get(12..)?).find(|a| a.kind == LINK_64)?;
        Some(u64::from_ne_bytes(stats.value.get(..8)?.try_into().ok()?))
    })
}

pub(crate) fn links(socket: &mut Socket) -> io::Result<Vec<Link>> {
    socket.dump(
        &Message::new(GETLINK, flag::DUMP, &link_header(0, 0, 0)),
        |body| {
            let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
            let found: Vec<Attr<'_>> = attrs(body.get(16..)?).collect();
            let number = |kind| found.iter().find(|a| a.kind == kind).and_then(Attr::u32);
            let name = found.iter().find(|a| a.kind == 3)?.text()?.to_owned();
            Some(Link {
                index,
                name,
                mtu: number(4).unwrap_or_default(),
                group: number(27).unwrap_or_default(),
            })
        },
    )
}

pub(crate) fn routes(socket: &mut Socket) -> io::Result<Vec<Route>> {
    let mut header = [0; 12];
    header[0] = AF_INET;
    socket.dump(&Message::new(GETROUTE, flag::DUMP, &header), |body| {
        let (prefix, table) = (*body.get(1)?, *body.get(4)?);
        let found: Vec<Attr<'_>> = attrs(body.get(12..)?).collect();
        let one = |kind| found.iter().find(|a| a.kind == kind);
        let to = one(1).and_then(Attr::ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED);
        Some(Route {
            to: Ipv4Net::new(to, prefix).ok()?,
            link: one(4).and_then(Attr::u32),
            priority: one(6).and_then(Attr::u32).unwrap_or_default(),
            table,
        })
    })
}

/// Deletes links at once: they are put into a group that no other link has, and the group is
/// deleted. One by one each costs the kernel 20 ms under its global lock.
pub(crate) fn links_delete(socket: &mut Socket, doomed: &[u32]) -> io::Result<()> {
    if doomed.is_empty() {
        return Ok(());
    }
    let taken: Vec<u32> = links(socket)?.iter().map(|link| link.group).collect();
    let group = (1..=u32::MAX)
        .rev()
        .find(|group| !taken.contains(group))
        .expect("there are fewer links than groups");
    for index in doomed {
        let mut message = Message::new(NEWLINK, 0, &link_header(*index, 0, 0));
        message.attr_u32(27, group);
        // A link may go by itself meanwhile: its namespace ended.
        unless(socket.request(vec![message]), rustix::io::Errno::NODEV)?;
    }
    let mut message = Message::new(DELLINK, 0, &link_header(0, 0, 0));
    message.attr_u32(27, group);
    unless(socket.request(vec![message]), rustix::io::Errno::NODEV)
}

fn unless(result: io::Result<()>, tolerated: rustix::io::Errno) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(tolerated.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// `ifinfomsg`
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// `rtmsg`
fn route_header(prefix: u8, scope: u8, flags: u32) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = AF_INET;
    header[1] = prefix;
    header[4] = TABLE_MAIN;
    header[5] = PROTO_STATIC;
    header[6] = scope;
    header[7] = ROUTE_UNICAST;
    header[8..].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// `ifaddrmsg` with a single address.
fn address_message(kind: u16, address: Ipv4Addr, link: u32, scope: u8) -> Message {
    let mut header = [AF_INET, 32, 0, scope, 0, 0, 0, 0];
    header[4..].copy_from_slice(&link.to_ne_bytes());
    let flags = if kind == NEWADDR {
        flag::CREATE | flag::EXCL
    } else {
        0
    };
    let mut message = Message::new(kind, flags, &header);
    message
        .attr(2, &address.octets())
        .attr(1, &address.octets());
    message
}
