//! One slot: how its namespace and its links are made, and how an old one is recognised.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use casemate_linux::net::{netns_create, netns_enter};
use rustix::io::Errno;

use crate::netlink::Socket;
use crate::sysctl::FreshProc;
use crate::{NetError, links};

/// The kernel takes links away some 50 ms after the last holder of their namespace is gone, later
/// when many go at once. A slot whose link is still there after this is held by somebody.
const LINK_GONE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the kernel may take to activate a link that is up; it does so at once, unless it is
/// busy taking many links away.
const LINK_RUNS_TIMEOUT: Duration = Duration::from_secs(2);
const LINK_RUNS_POLL: Duration = Duration::from_millis(1);
const LINK_GONE_POLL: Duration = Duration::from_millis(5);

/// A slot that is ready to be used. Its network exists as long as its namespace: the descriptor
/// here, every process in it, and nothing else keep that alive.
#[derive(Debug)]
pub struct NetSlot {
    pub index: u16,
    pub ip: Ipv4Addr,
    /// The host's end.
    pub host_link: String,
    pub netns: OwnedFd,
}

/// A fresh namespace with a route socket that belongs to it.
pub(crate) struct Netns {
    fd: OwnedFd,
    socket: Socket,
}

/// Makes `count` namespaces on a thread of its own, which ends afterwards: it is in the last of
/// them and fit for nothing else. They come as they are made, so that the caller's work on one
/// overlaps with the making of the next.
pub(crate) fn netns_stream(count: usize) -> mpsc::IntoIter<Result<Netns, NetError>> {
    let (sender, receiver) = mpsc::sync_channel(8);
    let failed = sender.clone();
    let spawned = thread::Builder::new().name("netns".into()).spawn(move || {
        let proc = match FreshProc::mount() {
            Ok(proc) => proc,
            Err(source) => {
                let _ = sender.send(Err(NetError::Netns { source }));
                return;
            }
        };
        for _ in 0..count {
            let made = netns_make(&proc);
            let stop = made.is_err();
            if sender.send(made).is_err() || stop {
                return;
            }
        }
    });
    if let Err(source) = spawned {
        let _ = failed.send(Err(NetError::Netns { source }));
    }
    receiver.into_iter()
}

fn netns_make(proc: &FreshProc) -> Result<Netns, NetError> {
    let fd = netns_create().map_err(|source| NetError::Netns { source })?;
    proc.set("ipv4/ip_unprivileged_port_start", "0")?;
    proc.set("ipv4/ping_group_range", "0 2147483647")?;
    // For links to come: loopback is there already and keeps `::1`.
    proc.set_if_present("ipv6/conf/default/disable_ipv6", "1")?;
    let socket = Socket::route().map_err(|source| NetError::Netns { source })?;
    Ok(Netns { fd, socket })
}

/// What a slot is to be.
pub(crate) struct Plan {
    pub(crate) index: u16,
    pub(crate) ip: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) host_link: String,
    pub(crate) mtu: u32,
}

impl NetSlot {
    /// Whether nothing was ever sent out of it, as far as can be told: then it has no connections
    /// that are tracked.
    pub(crate) fn was_silent(&self, host: &mut Socket) -> bool {
        let received = link_index(host, &self.host_link)
            .ok()
            .and_then(|index| links::link_received(host, index).ok());
        received.flatten() == Some(0)
    }

    /// Waits until the host's end passes packets, so that a first packet is never lost: TCP would
    /// send it again only after a second.
    pub(crate) fn wait_running(&self, host: &mut Socket) -> Result<(), NetError> {
        let link = &self.host_link;
        let deadline = Instant::now() + LINK_RUNS_TIMEOUT;
        let index = link_index(host, link)?;
        let failed = || NetError::netlink(format!("wait for link {link} to run"));
        while !links::link_running(host, index).map_err(failed())? {
            if Instant::now() > deadline {
                return Err(failed()(Errno::TIMEDOUT.into()));
            }
            thread::sleep(LINK_RUNS_POLL);
        }
        Ok(())
    }
}

impl Plan {
    /// Connects a namespace with the host. On an error nothing stays: the links go with the
    /// namespace.
    pub(crate) fn connect(self, host: &mut Socket, mut netns: Netns) -> Result<NetSlot, NetError> {
        self.pair_create(host, netns.fd.as_fd())?;
        let link = &self.host_link;
        let index = link_index(host, link)?;
        // No address of ours may appear on the host's end.
        links::ipv6_no_address(host, index)
            .map_err(NetError::netlink(format!("keep IPv6 off {link}")))?;
        links::slot_host_up(host, index, self.ip, self.gateway)
            .map_err(NetError::netlink(format!("route {} over {link}", self.ip)))?;
        links::slot_inside_up(&mut netns.socket, self.ip, self.gateway).map_err(
            NetError::netlink(format!("set up slot {} inside", self.index)),
        )?;
        Ok(NetSlot {
            index: self.index,
            ip: self.ip,
            host_link: self.host_link,
            netns: netns.fd,
        })
    }

    /// Waits for the link of the slot's former use to go. The kernel does that by itself, and says
    /// so nowhere but in the outcome of trying again.
    fn pair_create(&self, host: &mut Socket, netns: BorrowedFd<'_>) -> Result<(), NetError> {
        let deadline = Instant::now() + LINK_GONE_TIMEOUT;
        loop {
            match links::slot_pair_create(host, &self.host_link, self.mtu, netns) {
                Err(error) if is(&error, Errno::EXIST) && Instant::now() < deadline => {
                    thread::sleep(LINK_GONE_POLL);
                }
                Err(error) if is(&error, Errno::EXIST) => {
                    return Err(NetError::SlotBusy {
                        index: self.index,
                        link: self.host_link.clone(),
                    });
                }
                result => {
                    let action = format!("make link {}", self.host_link);
                    return result.map_err(NetError::netlink(action));
                }
            }
        }
    }

    /// Takes over a slot that lived on without us, if the namespace is really that slot's.
    pub(crate) fn adopt(self, host: &Socket, netns: OwnedFd) -> Result<NetSlot, NetError> {
        let not_this = |reason| NetError::NotThisSlot {
            index: self.index,
            reason,
        };
        let link = links::link_index(host, &self.host_link)
            .map_err(NetError::netlink(format!("find link {}", self.host_link)))?;
        if link.is_none() {
            return Err(not_this("the host's end of its link is gone"));
        }
        if !inside_has(&netns, self.ip)? {
            return Err(not_this("it does not have the slot's address"));
        }
        Ok(NetSlot {
            index: self.index,
            ip: self.ip,
            host_link: self.host_link,
            netns,
        })
    }
}

/// Looks into a namespace from a thread that ends in it.
fn inside_has(netns: &OwnedFd, ip: Ipv4Addr) -> Result<bool, NetError> {
    let look = || {
        netns_enter(netns)?;
        links::slot_inside_has(&mut Socket::route()?, ip)
    };
    let looked = thread::scope(|scope| scope.spawn(look).join());
    // A panic there is a bug here, and its message is on standard error already.
    looked
        .unwrap_or_else(|_| Err(io::Error::other("the looking thread panicked")))
        .map_err(|source| NetError::Netns { source })
}

fn link_index(host: &Socket, link: &str) -> Result<u32, NetError> {
    links::link_index(host, link)
        .and_then(|found| found.ok_or_else(|| Errno::NODEV.into()))
        .map_err(NetError::netlink(format!("find link {link}")))
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
