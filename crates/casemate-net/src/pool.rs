//! The instance's network as a whole: opened once, slots and policies made through it, ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use casemate_types::InstanceId;
use casemate_types::network::CompiledPolicy;
use ipnet::{IpNet, Ipv4Net};
use rustix::net::sockopt;

use crate::elements::{self, Change, SlotRules};
use crate::links::SlotLink;
use crate::names::Names;
use crate::neighbours::{self, Neighbour};
use crate::netlink::Socket;
use crate::rules::{PROXY_HTTP_PORT, PROXY_TLS_PORT, Table};
use crate::slot::{NetSlot, Plan, netns_stream};
use crate::survey::survey;
use crate::{NetError, Subnet, conntrack, forwarding, links, tool};

/// Connections that one slot may have tracked at once, by default. The kernel's table (262,144
/// entries as a rule) is shared by all; a slot at its limit gets new connections refused.
pub const CONNECTIONS_PER_SLOT_DEFAULT: u32 = 2048;

/// Room for questions that wait for the resolver, bytes; the kernel takes twice as much. With its
/// usual 208 KiB, two slots that ask all that they may at once would lose some.
const QUESTIONS_BYTES: usize = 1024 * 1024;
/// Connections that wait to be accepted by resolver or proxy. With the 128 of the standard library,
/// one slot that connects as often as it may at once would make others' wait a second.
const CONNECTS_WAITING: i32 = 4096;

/// What the network of an instance is made from.
#[derive(Debug, Clone)]
pub struct NetConfig {
    pub instance: InstanceId,
    /// Leased from the range of the host's instances; /20 to /29.
    pub subnet: Ipv4Net,
    /// Of this instance, beside those of the host's other instances, gone after a reboot:
    /// `/run/casemate/<instance>`.
    pub state_dir: PathBuf,
    /// Closed ranges that the operator opens by name. This host and other sandboxes stay closed.
    pub allow_ranges: Vec<IpNet>,
    /// [`CONNECTIONS_PER_SLOT_DEFAULT`]. Too low: busy programs see refused connections; too high:
    /// one sandbox can fill the host's table and hurt all.
    pub connections_per_slot_max: u32,
}

/// The network of one instance.
#[derive(Debug)]
pub struct NetPool {
    names: Names,
    subnet: Subnet,
    opened: Vec<Ipv4Net>,
    connections_per_slot_max: u32,
    state_dir: PathBuf,
    mtu: u32,
    /// Links and routes of the host.
    host: Mutex<Socket>,
    filter: Mutex<Filter>,
}

#[derive(Debug)]
struct Filter {
    socket: Socket,
    /// What the kernel's sets hold, for slots that have anything.
    policies: BTreeMap<u16, SlotRules>,
    /// Slots whose address may have connections tracked from an earlier use.
    used: BTreeSet<u16>,
}

/// Removes the packet filter's table of an instance that is gone: its rules about addresses that
/// are another's now would refuse what that one allows. No error when there is none.
pub fn table_forget(instance: &InstanceId) -> Result<(), NetError> {
    let name = Names::new(instance.clone()).table();
    tool::nft_load(&format!(
        "add table inet {name}\ndelete table inet {name}\n"
    ))
}

impl NetPool {
    /// Makes or takes over the instance's table, gateway and forwarding. Sandboxes that run on keep
    /// their policies through it without a gap: the table is replaced in one transaction.
    pub fn open(config: NetConfig) -> Result<Self, NetError> {
        let names = Names::new(config.instance);
        let subnet = Subnet::new(config.subnet)?;
        let opened = config
            .allow_ranges
            .into_iter()
            .map(|range| match range {
                IpNet::V4(net) => Ok(net),
                IpNet::V6(_) => Err(NetError::RangeIsIpv6(range)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut host = Socket::route().map_err(NetError::netlink("open a route socket"))?;
        let mtu = survey(&mut host, &names, subnet)?;
        let socket = Socket::netfilter().map_err(NetError::netlink("open a filter socket"))?;
        let pool = Self {
            names,
            subnet,
            opened,
            connections_per_slot_max: config.connections_per_slot_max,
            state_dir: config.state_dir,
            mtu,
            host: Mutex::new(host),
            filter: Mutex::new(Filter {
                socket,
                policies: BTreeMap::new(),
                used: BTreeSet::new(),
            }),
        };
        {
            let mut filter = lock(&pool.filter);
            filter.policies = pool.policies_in_kernel(&mut filter.socket)?;
            let sources = conntrack::sources(&mut filter.socket)
                .map_err(NetError::netlink("list tracked connections"))?;
            filter.used = sources
                .into_iter()
                .filter_map(|ip| subnet.index(ip))
                .collect();
            pool.table_load(&filter)?;
        }
        links::gateway_add(
            &mut lock(&pool.host),
            subnet.gateway(),
            &pool.names.gateway_label(),
        )
        .map_err(NetError::netlink("add the gateway's address"))?;
        // Last, so that nothing is forwarded before the rules are there.
        forwarding::enable(&pool.state_dir)?;
        Ok(pool)
    }

    /// The link that every slot has inside.
    pub fn slot_link(&self) -> SlotLink {
        SlotLink::new(self.mtu)
    }

    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The address that slots know the host by.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }

    /// The sockets on which the instance's resolver answers.
    pub fn dns_sockets(&self) -> Result<(UdpSocket, TcpListener), NetError> {
        let address = self.gateway();
        let failed = |source| NetError::DnsSocket { address, source };
        let udp = UdpSocket::bind((address, 53)).map_err(failed)?;
        sockopt::set_socket_recv_buffer_size_force(&udp, QUESTIONS_BYTES)
            .map_err(|error| failed(error.into()))?;
        let tcp = listener(address, 53).map_err(failed)?;
        Ok((udp, tcp))
    }

    /// The sockets on which the instance's proxy takes what is judged by name: HTTP, then TLS.
    pub fn proxy_sockets(&self) -> Result<(TcpListener, TcpListener), NetError> {
        let address = self.gateway();
        let bind = |port| {
            listener(address, port).map_err(|source| NetError::ProxySocket {
                address,
                port,
                source,
            })
        };
        Ok((bind(PROXY_HTTP_PORT)?, bind(PROXY_TLS_PORT)?))
    }

    /// Makes one slot. Blocks some 1 ms, or up to 2 s while the kernel still clears away the slot's
    /// former use; then [`NetError::SlotBusy`].
    pub fn slot_create(&self, index: u16) -> Result<NetSlot, NetError> {
        let mut made = self.slots_create(index..=index)?;
        Ok(made.remove(0))
    }

    /// Makes the slots of all these indexes, or none: on an error those that were made are dropped.
    pub fn slots_create(
        &self,
        indexes: impl IntoIterator<Item = u16>,
    ) -> Result<Vec<NetSlot>, NetError> {
        let plans = indexes
            .into_iter()
            .map(|index| self.plan(index))
            .collect::<Result<Vec<_>, _>>()?;
        let namespaces = netns_stream(plans.len());
        let slots = plans
            .into_iter()
            .zip(namespaces)
            .map(|(plan, netns)| plan.connect(&mut lock(&self.host), netns?))
            .collect::<Result<Vec<_>, _>>()?;
        self.connections_forget(&slots)?;
        for slot in &slots {
            slot.wait_running(&mut lock(&self.host))?;
        }
        Ok(slots)
    }

    /// Takes over a slot of a sandbox that ran on without us.
    pub fn adopt(&self, index: u16, netns: OwnedFd) -> Result<NetSlot, NetError> {
        self.plan(index)?.adopt(&lock(&self.host), netns)
    }

    /// Gives slots back: their policies go, then their namespaces, whose links the kernel takes away
    /// together. Their processes must have ended. After an error policies may stand, see
    /// [`Self::has_policy`].
    pub fn retire(&self, slots: Vec<NetSlot>) -> Result<(), NetError> {
        let indexes: Vec<u16> = slots.iter().map(|slot| slot.index).collect();
        let spoke: Vec<u16> = {
            let mut host = lock(&self.host);
            let spoke = slots.iter().filter(|slot| !slot.was_silent(&mut host));
            spoke.map(|slot| slot.index).collect()
        };
        lock(&self.filter).used.extend(spoke);
        drop(slots);
        self.policies_clear(&indexes)
    }

    /// Replaces a slot's policy. When the call returns, it holds for every packet that leaves the
    /// slot, those of established connections too.
    pub fn policy_apply(&self, index: u16, policy: &CompiledPolicy) -> Result<(), NetError> {
        let address = self.subnet.address(index)?;
        let new = SlotRules::of(policy);
        let mut filter = lock(&self.filter);
        let Filter {
            socket, policies, ..
        } = &mut *filter;
        let old = policies.get(&index).cloned().unwrap_or_default();
        let change = Change {
            address,
            old: &old,
            new: &new,
        };
        elements::change(socket, &self.names.table(), &[change])
            .map_err(NetError::netlink(format!("set the policy of slot {index}")))?;
        if new.is_empty() {
            policies.remove(&index);
        } else {
            policies.insert(index, new);
        }
        Ok(())
    }

    /// Whether a slot has another policy than the default one, its own or an earlier user's.
    pub fn has_policy(&self, index: u16) -> bool {
        lock(&self.filter).policies.contains_key(&index)
    }

    /// Gives a slot the default policy.
    pub fn policy_clear(&self, index: u16) -> Result<(), NetError> {
        self.subnet.address(index)?;
        self.policies_clear(&[index])
    }

    /// Puts the table back when another program took it away (`nft flush ruleset`), with all
    /// policies; says whether that was so. To be called by a timer.
    pub fn heal(&self) -> Result<bool, NetError> {
        let mut filter = lock(&self.filter);
        let there = elements::table_exists(&mut filter.socket, &self.names.table())
            .map_err(NetError::netlink("look for the table"))?;
        if !there {
            self.table_load(&filter)?;
        }
        Ok(!there)
    }

    /// Lets slots pass the host's other firewalls, on the operator's word (`manage_firewall`).
    /// Answers those that only their own tools can be told. To be called again with [`Self::heal`]:
    /// others flush rules that they do not know.
    pub fn neighbours_admit(&self) -> Result<Vec<Neighbour>, NetError> {
        neighbours::admit(&self.names, self.subnet)
    }

    /// Ends what a crash left: links and policies of slots that are not in `keep`.
    pub fn sweep(&self, keep: &BTreeSet<u16>) -> Result<(), NetError> {
        self.links_delete(|index| !keep.contains(&index))?;
        let gone: Vec<u16> = {
            let filter = lock(&self.filter);
            let slots = filter.policies.keys().copied();
            slots.filter(|index| !keep.contains(index)).collect()
        };
        self.policies_clear(&gone)
    }

    /// Takes everything of this instance away: links, table, gateway, and forwarding when no other
    /// instance needs it. Every sandbox must have ended. Can be repeated.
    pub fn purge(&self) -> Result<(), NetError> {
        self.links_delete(|_| true)?;
        let name = self.names.table();
        tool::nft_load(&format!(
            "add table inet {name}\ndelete table inet {name}\n"
        ))?;
        lock(&self.filter).policies.clear();
        neighbours::withdraw(&self.names, self.subnet)?;
        links::gateway_delete(&mut lock(&self.host), self.gateway())
            .map_err(NetError::netlink("delete the gateway's address"))?;
        forwarding::release(&self.state_dir)
    }

    fn plan(&self, index: u16) -> Result<Plan, NetError> {
        Ok(Plan {
            index,
            ip: self.subnet.address(index)?,
            gateway: self.gateway(),
            host_link: self.names.link(index),
            mtu: self.mtu,
        })
    }

    /// Ends what slots inherited. Their former links are gone by now, so nothing is added to it.
    fn connections_forget(&self, slots: &[NetSlot]) -> Result<(), NetError> {
        let mut filter = lock(&self.filter);
        let Filter { socket, used, .. } = &mut *filter;
        let inherited: BTreeSet<Ipv4Addr> = slots
            .iter()
            .filter(|slot| used.contains(&slot.index))
            .map(|slot| slot.ip)
            .collect();
        if !inherited.is_empty() {
            conntrack::forget(socket, &inherited)
                .map_err(NetError::netlink("forget the connections of former slots"))?;
        }
        for slot in slots {
            used.remove(&slot.index);
        }
        Ok(())
    }

    fn policies_clear(&self, indexes: &[u16]) -> Result<(), NetError> {
        let mut filter = lock(&self.filter);
        let Filter {
            socket, policies, ..
        } = &mut *filter;
        let new = SlotRules::default();
        let changes = indexes
            .iter()
            .filter_map(|index| Some((*index, policies.get(index)?)))
            .map(|(index, old)| {
                Ok(Change {
                    address: self.subnet.address(index)?,
                    old,
                    new: &new,
                })
            })
            .collect::<Result<Vec<_>, NetError>>()?;
        elements::change(socket, &self.names.table(), &changes)
            .map_err(NetError::netlink("clear policies"))?;
        policies.retain(|index, _| !indexes.contains(index));
        Ok(())
    }

    fn policies_in_kernel(
        &self,
        socket: &mut Socket,
    ) -> Result<BTreeMap<u16, SlotRules>, NetError> {
        let table = self.names.table();
        let there = elements::table_exists(socket, &table)
            .map_err(NetError::netlink("look for the table"))?;
        if !there {
            return Ok(BTreeMap::new());
        }
        elements::list(socket, &table, self.subnet)
            .map_err(NetError::netlink("read the policies that the kernel holds"))
    }

    fn table_load(&self, filter: &Filter) -> Result<(), NetError> {
        let table = Table {
            names: &self.names,
            subnet: self.subnet,
            opened: &self.opened,
            connections_per_slot_max: self.connections_per_slot_max,
            policies: &filter.policies,
        };
        tool::nft_load(&table.render())
    }

    fn links_delete(&self, doomed: impl Fn(u16) -> bool) -> Result<(), NetError> {
        let mut host = lock(&self.host);
        let all = links::links(&mut host).map_err(NetError::netlink("list links"))?;
        let doomed: Vec<u32> = all
            .iter()
            .filter(|link| self.names.link_index(&link.name).is_some_and(&doomed))
            .map(|link| link.index)
            .collect();
        links::links_delete(&mut host, &doomed).map_err(NetError::netlink("delete links"))
    }
}

fn listener(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((address, port))?;
    rustix::net::listen(&listener, CONNECTS_WAITING)?;
    Ok(listener)
}

/// Nothing is left half changed by a panic under these locks: the kernel's answer decides.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
