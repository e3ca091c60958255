//! Elements of the policy sets: what a slot's policy means there, and the transactions that change
//! them, straight to the kernel. Running `nft` for this would cost milliseconds a create.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use casemate_types::network::CompiledPolicy;
use ipnet::{IpNet, Ipv4Net};
use rustix::io::Errno;

use crate::Subnet;
use crate::netlink::{Message, Socket, attrs, flag};

/// Pairs of slot and destination that stay open whatever the other set says.
pub(crate) const ALLOW_SET: &str = "allow_out";
/// Pairs of slot and destination that are refused.
pub(crate) const DENY_SET: &str = "deny_out";
/// Pairs of slot and destination where names are looked at: a slot with domains has every
/// destination here, any other none. Pairs, so that all sets are of one kind.
pub(crate) const BY_NAME_SET: &str = "by_name";
const SETS: [&str; 3] = [ALLOW_SET, DENY_SET, BY_NAME_SET];
const EVERYTHING: Span = Span {
    first: Ipv4Addr::UNSPECIFIED,
    last: Ipv4Addr::BROADCAST,
};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;
const GET_ELEMENTS: u16 = SUBSYSTEM << 8 | 13;
const DELETE_ELEMENTS: u16 = SUBSYSTEM << 8 | 14;
const FAMILY_INET: u8 = 1;
/// Elements in one message: their list is an attribute of at most 64 KiB, 44 bytes each.
const ELEMENTS_PER_MESSAGE: usize = 1000;

/// An inclusive span of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) first: Ipv4Addr,
    pub(crate) last: Ipv4Addr,
}

/// The elements of one slot. None at all is the default policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SlotRules {
    pub(crate) allow: BTreeSet<Span>,
    pub(crate) deny: BTreeSet<Span>,
    pub(crate) by_name: BTreeSet<Span>,
}

impl SlotRules {
    /// IPv6 entries have no elements: a slot has no IPv6 at all.
    pub(crate) fn of(policy: &CompiledPolicy) -> Self {
        Self {
            allow: spans(&policy.allow),
            deny: spans(&policy.deny),
            by_name: (!policy.domains.is_empty())
                .then_some(EVERYTHING)
                .into_iter()
                .collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sets().iter().all(|set| set.is_empty())
    }

    /// In the order of [`SETS`].
    fn sets(&self) -> [&BTreeSet<Span>; 3] {
        [&self.allow, &self.deny, &self.by_name]
    }
}

/// Spans that do not overlap: the sets refuse those that do.
fn spans(nets: &[IpNet]) -> BTreeSet<Span> {
    let v4: Vec<Ipv4Net> = nets
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        })
        .collect();
    Ipv4Net::aggregate(&v4)
        .into_iter()
        .map(|net| Span {
            first: net.network(),
            last: net.broadcast(),
        })
        .collect()
}

/// One slot's change from an old to a new set of rules.
pub(crate) struct Change<'a> {
    pub(crate) address: Ipv4Addr,
    pub(crate) old: &'a SlotRules,
    pub(crate) new: &'a SlotRules,
}

/// Makes the changes in one transaction: all of them hold when the call returns, or none.
pub(crate) fn change(socket: &mut Socket, table: &str, changes: &[Change<'_>]) -> io::Result<()> {
    let mut removed = [const { Vec::new() }; SETS.len()];
    let mut added = [const { Vec::new() }; SETS.len()];
    for Change { address, old, new } in changes {
        for (at, (old, new)) in old.sets().into_iter().zip(new.sets()).enumerate() {
            removed[at].extend(old.difference(new).map(|span| (*address, *span)));
            added[at].extend(new.difference(old).map(|span| (*address, *span)));
        }
    }
    let mut messages = Vec::new();
    for (kind, lists) in [(DELETE_ELEMENTS, removed), (NEW_ELEMENTS, added)] {
        for (set, list) in SETS.into_iter().zip(lists) {
            messages.extend(
                list.chunks(ELEMENTS_PER_MESSAGE)
                    .map(|chunk| elements_message(kind, table, set, chunk)),
            );
        }
    }
    let Some(last) = messages.pop() else {
        return Ok(());
    };
    messages.insert(0, Message::new(BATCH_BEGIN, 0, &batch_header()));
    let end = Message::new(BATCH_END, 0, &batch_header());
    socket.transact(messages, last, vec![end])
}

/// Whether the table is there. Another program's `flush ruleset` takes it away.
pub(crate) fn table_exists(socket: &mut Socket, table: &str) -> io::Result<bool> {
    let message = Message::new(GET_TABLE, flag::DUMP, &[FAMILY_INET, 0, 0, 0]);
    let tables = socket.dump(&message, |body| {
        let name = attrs(body.get(4..)?).find(|a| a.kind == 1)?;
        name.text().map(str::to_owned)
    })?;
    Ok(tables.iter().any(|name| name == table))
}

/// What the kernel holds, by slot. Elements of addresses that are no slot's are left out.
pub(crate) fn list(
    socket: &mut Socket,
    table: &str,
    subnet: Subnet,
) -> io::Result<BTreeMap<u16, SlotRules>> {
    let mut rules: BTreeMap<u16, SlotRules> = BTreeMap::new();
    for set in SETS {
        let listed = match set_list(socket, table, set) {
            // The table of an older version, which is about to be replaced, lacks a set.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => continue,
            listed => listed?,
        };
        for (address, span) in listed {
            let Some(index) = subnet.index(address) else {
                continue;
            };
            let slot = rules.entry(index).or_default();
            let spans = match set {
                ALLOW_SET => &mut slot.allow,
                DENY_SET => &mut slot.deny,
                _ => &mut slot.by_name,
            };
            spans.insert(span);
        }
    }
    Ok(rules)
}

fn set_list(socket: &mut Socket, table: &str, set: &str) -> io::Result<Vec<(Ipv4Addr, Span)>> {
    let mut message = Message::new(GET_ELEMENTS, flag::DUMP, &[FAMILY_INET, 0, 0, 0]);
    message.attr_text(1, table).attr_text(2, set);
    let parts = socket.dump(&message, |body| {
        let list = attrs(body.get(4..)?).find(|a| a.kind == 3)?;
        Some(
            attrs(list.value)
                .filter_map(|e| element(e.value))
                .collect::<Vec<_>>(),
        )
    })?;
    Ok(parts.into_iter().flatten().collect())
}

fn element(bytes: &[u8]) -> Option<(Ipv4Addr, Span)> {
    let key = |kind| {
        let key = attrs(bytes).find(|a| a.kind == kind)?;
        let value = attrs(key.value).find(|a| a.kind == 1)?.value;
        let pair: [u8; 8] = value.try_into().ok()?;
        let [a, b, c, d, e, f, g, h] = pair;
        Some((Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h)))
    };
    let (address, first) = key(1)?;
    let (_, last) = key(10).unwrap_or((address, first));
    Some((address, Span { first, last }))
}

fn elements_message(kind: u16, table: &str, set: &str, list: &[(Ipv4Addr, Span)]) -> Message {
    let flags = if kind == NEW_ELEMENTS {
        flag::CREATE
    } else {
        0
    };
    let mut message = Message::new(kind, flags, &[FAMILY_INET, 0, 0, 0]);
    message.attr_text(1, table).attr_text(2, set);
    message.nest(3, |elements| {
        for (address, span) in list {
            elements.nest(1, |element| {
                for (kind, end) in [(1, span.first), (10, span.last)] {
                    let mut value = address.octets().to_vec();
                    value.extend(end.octets());
                    element.nest(kind, |key| {
                        key.attr(1, &value);
                    });
                }
            });
        }
    });
    message
}

/// `nfgenmsg` that names the subsystem of the whole transaction.
fn batch_header() -> [u8; 4] {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    [0, 0, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> CompiledPolicy {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        CompiledPolicy {
            allow: nets(allow),
            deny: nets(deny),
            ..CompiledPolicy::open()
        }
    }

    fn span(first: &str, last: &str) -> Span {
        Span {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        }
    }

    #[test]
    fn the_open_policy_has_no_elements() {
        assert!(SlotRules::of(&CompiledPolicy::open()).is_empty());
        assert!(SlotRules::of(&policy(&["2001:db8::/32"], &["::/0"])).is_empty());
    }

    #[test]
    fn overlapping_entries_become_one() {
        let rules = SlotRules::of(&policy(
            &["8.8.8.8/32", "8.8.8.8/32"],
            &["9.0.0.0/8", "9.9.9.9/32", "1.1.1.1/32"],
        ));
        assert_eq!(rules.allow, BTreeSet::from([span("8.8.8.8", "8.8.8.8")]));
        assert_eq!(
            rules.deny,
            BTreeSet::from([span("1.1.1.1", "1.1.1.1"), span("9.0.0.0", "9.255.255.255")])
        );
    }
}
