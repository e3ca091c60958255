//! The packet filter's rules as text: one table, loaded in one transaction. Pure.
//!
//! What changes while sandboxes run is elements of three sets (`allow_out`, `deny_out`, `by_name`); a
//! slot without elements has the default policy, so creating a sandbox with it changes nothing here.
//! The anti-spoof set names every slot that the subnet has, used or not: a slot's link, address and
//! name follow from its index.
//!
//! Order of judgement for a packet from a slot: sender's address, and questions beyond the slot's
//! rate (`spoof`), the host's own addresses before anybody's address translation (`guard`), DNS to
//! the resolver and what is judged by name to the proxy (`turned`), then for what is forwarded other
//! sandboxes, the operator's opened ranges, closed ranges, the tenant's allowances and denials
//! (`from_slot`, `judge`), the number of connections (`counted`). There is no shortcut for
//! established connections: a changed policy also ends those that it no longer allows.
//!
//! One thread and one UDP socket answer all slots, so what a slot sends there has a rate: without
//! one, a slot in a loop would fill the socket's buffer, and its neighbours' questions would be lost.
//! Too many questions are dropped before anything is done for them, too many connections before they
//! are tracked for good; a dropped one is tried again by the kernel that sent it.
//!
//! A slot whose policy has domains is in `by_name`. Its TCP connections to ports 80 and 443 of
//! addresses that it is not allowed go to the proxy, wherever they were sent: the proxy looks at the
//! name only. All else (QUIC, DNS over TLS, other ports) follows the rules about addresses, which
//! deny it. Where nobody listens at the proxy's ports, such a connection is refused.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use casemate_types::network::CLOSED_RANGES;
use ipnet::Ipv4Net;

use crate::Subnet;
use crate::elements::{ALLOW_SET, BY_NAME_SET, DENY_SET, SlotRules, Span};
use crate::names::Names;

/// Where the egress process listens at the gateway's address for what is judged by name: HTTP that
/// was sent to any port 80, TLS that was sent to any port 443. Not those ports themselves: a
/// program that listens on all of the host's addresses may have them.
pub const PROXY_HTTP_PORT: u16 = 27_080;
/// See [`PROXY_HTTP_PORT`].
pub const PROXY_TLS_PORT: u16 = 27_443;

/// One counter for each slot: its tracked connections, and the two rates below.
const CONNECTIONS_SET: &str = "connections";
const QUESTIONS_SET: &str = "questions";
const CONNECTS_SET: &str = "connects";
/// Questions over UDP that a slot may send, to any address; more are dropped. A program waits for
/// answers, and the resolver works on 64 of a slot at once.
const QUESTIONS_RATE: Rate = Rate {
    per_second: 500,
    burst: 200,
};
/// Connections that a slot may begin to the resolver and the proxy; the first packet of more is
/// dropped. The proxy carries 256 of a slot at once.
const CONNECTS_RATE: Rate = Rate {
    per_second: 200,
    burst: 400,
};

/// How much a slot may send.
struct Rate {
    per_second: u32,
    /// At once, after a pause.
    burst: u32,
}

impl Rate {
    /// Holds for what is beyond the rate of its sender, who is counted in `set`.
    fn exceeded(&self, set: &str) -> String {
        let Self { per_second, burst } = self;
        format!(
            "update @{set} {{ ip saddr limit rate over {per_second}/second burst {burst} packets }}"
        )
    }
}

/// What the table is made from.
pub(crate) struct Table<'a> {
    pub(crate) names: &'a Names,
    pub(crate) subnet: Subnet,
    pub(crate) opened: &'a [Ipv4Net],
    pub(crate) connections_per_slot_max: u32,
    pub(crate) policies: &'a BTreeMap<u16, SlotRules>,
}

impl Table<'_> {
    /// Replaces the table, or makes it: `add` keeps `delete` from failing where there is none.
    pub(crate) fn render(&self) -> String {
        let name = self.names.table();
        let mut text = format!("add table inet {name}\ndelete table inet {name}\n");
        let _ = writeln!(text, "table inet {name} {{");
        self.sets(&mut text);
        self.chains(&mut text);
        text.push_str("}\n");
        text
    }

    fn sets(&self, text: &mut String) {
        let slots = (0..self.subnet.slots()).filter_map(|index| {
            let address = self.subnet.address(index).ok()?;
            Some(format!("\"{}\" . {address}", self.names.link(index)))
        });
        set(text, "slots", "typeof iifname . ip saddr", slots);
        let closed = CLOSED_RANGES.iter().map(Ipv4Net::to_string);
        set(text, "closed", "type ipv4_addr; flags interval", closed);
        let opened = Ipv4Net::aggregate(&self.opened.to_vec());
        let opened = opened.iter().map(Ipv4Net::to_string);
        set(text, "opened", "type ipv4_addr; flags interval", opened);
        let pairs = "type ipv4_addr . ipv4_addr; flags interval";
        set(text, ALLOW_SET, pairs, self.spans(|rules| &rules.allow));
        set(text, DENY_SET, pairs, self.spans(|rules| &rules.deny));
        set(text, BY_NAME_SET, pairs, self.spans(|rules| &rules.by_name));
        let size = self.subnet.slots();
        // No element needs to time out: senders that get so far are the subnet's slots.
        let counters = format!("type ipv4_addr; size {size}; flags dynamic");
        for name in [CONNECTIONS_SET, QUESTIONS_SET, CONNECTS_SET] {
            set(text, name, &counters, std::iter::empty());
        }
    }

    fn spans<'a>(
        &'a self,
        which: impl Fn(&'a SlotRules) -> &'a std::collections::BTreeSet<Span> + 'a,
    ) -> impl Iterator<Item = String> + 'a {
        self.policies.iter().flat_map(move |(index, rules)| {
            // A policy for a slot beyond the subnet names no packet.
            let address = self.subnet.address(*index).unwrap_or(Ipv4Addr::UNSPECIFIED);
            which(rules)
                .iter()
                .map(move |span| format!("{address} . {}-{}", span.first, span.last))
        })
    }

    fn chains(&self, text: &mut String) {
        let link = format!("\"{}*\"", self.names.link_prefix());
        let gateway = self.subnet.gateway();
        let subnet = self.subnet.net();
        let max = self.connections_per_slot_max;
        let dns = "meta l4proto { tcp, udp } th dport 53";
        let proxy = format!("tcp dport {{ {PROXY_HTTP_PORT}, {PROXY_TLS_PORT} }}");
        let too_many_questions = QUESTIONS_RATE.exceeded(QUESTIONS_SET);
        let too_many_connects = CONNECTS_RATE.exceeded(CONNECTS_SET);
        let _ = write!(
            text,
            r#"
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}

  chain counted {{
    ct state new add @{CONNECTIONS_SET} {{ ip saddr ct count over {max} }} goto refuse
    accept
  }}

  chain paced {{
    meta l4proto tcp ct state new {too_many_connects} drop
    goto counted
  }}

  chain spoof {{
    type filter hook prerouting priority raw; policy accept;
    iifname != {link} accept
    meta nfproto != ipv4 drop
    iifname . ip saddr != @slots drop
    udp dport 53 {too_many_questions} drop
  }}

  chain guard {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != {link} accept
    ct direction reply accept
    fib daddr type local {dns} accept
    fib daddr type local goto refuse
  }}

  chain turned {{
    type nat hook prerouting priority dstnat - 5; policy accept;
    iifname != {link} accept
    {dns} dnat ip to {gateway}:53
    ip saddr . ip daddr != @{BY_NAME_SET} accept
    ip saddr . ip daddr @{ALLOW_SET} accept
    tcp dport 80 dnat ip to {gateway}:{PROXY_HTTP_PORT}
    tcp dport 443 dnat ip to {gateway}:{PROXY_TLS_PORT}
  }}

  chain input {{
    type filter hook input priority filter; policy accept;
    iifname {link} goto from_slot_here
    ip daddr {gateway} {dns} goto refuse
    ip daddr {gateway} {proxy} goto refuse
  }}

  chain from_slot_here {{
    ct direction reply accept
    ip daddr {gateway} {dns} goto paced
    ip daddr {gateway} {proxy} ip saddr . ip daddr @{BY_NAME_SET} goto paced
    goto refuse
  }}

  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname {link} goto from_slot
    oifname {link} goto to_slot
  }}

  chain from_slot {{
    ct state invalid drop
    meta l4proto != {{ tcp, udp, icmp }} goto refuse
    ip daddr {subnet} goto refuse
    oifname {link} goto refuse
    ip daddr @opened goto judge
    ip daddr @closed goto refuse
    goto judge
  }}

  chain judge {{
    ip saddr . ip daddr @{ALLOW_SET} goto counted
    ip saddr . ip daddr @{DENY_SET} goto refuse
    goto counted
  }}

  chain to_slot {{
    ct state established,related accept
    drop
  }}

  chain out {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != {link} masquerade fully-random
  }}
"#
        );
    }
}

fn set(text: &mut String, name: &str, kind: &str, elements: impl Iterator<Item = String>) {
    let elements: Vec<String> = elements.collect();
    let _ = write!(
        text,
        "  set {name} {{\n    {}",
        kind.replace("; ", "\n    ")
    );
    if !elements.is_empty() {
        let _ = write!(text, "\n    elements = {{ {} }}", elements.join(", "));
    }
    text.push_str("\n  }\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_types::InstanceId;
    use casemate_types::network::{CompiledPolicy, DomainPattern};

    fn render(opened: &[&str], policies: &BTreeMap<u16, SlotRules>) -> String {
        let opened: Vec<Ipv4Net> = opened.iter().map(|text| text.parse().unwrap()).collect();
        Table {
            names: &Names::new(InstanceId::parse("ab12cd34").unwrap()),
            subnet: Subnet::new("100.64.0.0/29".parse().unwrap()).unwrap(),
            opened: &opened,
            connections_per_slot_max: 77,
            policies,
        }
        .render()
    }

    #[track_caller]
    fn check_line(text: &str, line: &str) {
        assert!(
            text.lines().any(|l| l.trim() == line),
            "no line `{line}` in\n{text}"
        );
    }

    #[test]
    fn the_table_is_replaced_whole() {
        let text = render(&[], &BTreeMap::new());
        assert!(text.starts_with(
            "add table inet casemate_ab12cd34\ndelete table inet casemate_ab12cd34\ntable inet"
        ));
        check_line(
            &text,
            "ct state new add @connections { ip saddr ct count over 77 } goto refuse",
        );
        check_line(&text, "iifname \"cmab12cd-*\" goto from_slot");
        check_line(
            &text,
            "ip daddr 100.64.0.1 meta l4proto { tcp, udp } th dport 53 goto paced",
        );
        check_line(
            &text,
            "udp dport 53 update @questions { ip saddr limit rate over 500/second burst 200 \
             packets } drop",
        );
        check_line(
            &text,
            "meta l4proto tcp ct state new update @connects { ip saddr limit rate over \
             200/second burst 400 packets } drop",
        );
    }

    #[test]
    fn every_slot_is_bound_to_its_address() {
        let text = render(&[], &BTreeMap::new());
        check_line(
            &text,
            "elements = { \"cmab12cd-0\" . 100.64.0.2, \"cmab12cd-1\" . 100.64.0.3, \
             \"cmab12cd-2\" . 100.64.0.4, \"cmab12cd-3\" . 100.64.0.5, \"cmab12cd-4\" . 100.64.0.6 }",
        );
    }

    #[test]
    fn opened_ranges_are_merged() {
        let text = render(
            &["10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16"],
            &BTreeMap::new(),
        );
        check_line(&text, "elements = { 10.1.0.0/16, 10.2.0.0/16 }");
    }

    #[test]
    fn policies_survive_a_reload() {
        let policy = CompiledPolicy {
            allow: vec!["8.8.8.8/32".parse().unwrap()],
            deny: vec!["0.0.0.0/0".parse().unwrap()],
            domains: vec![DomainPattern::All],
            ..CompiledPolicy::default()
        };
        let policies = BTreeMap::from([(3, SlotRules::of(&policy))]);
        let text = render(&[], &policies);
        check_line(&text, "elements = { 100.64.0.5 . 8.8.8.8-8.8.8.8 }");
        let everything = "elements = { 100.64.0.5 . 0.0.0.0-255.255.255.255 }";
        let said = text.lines().filter(|line| line.trim() == everything);
        assert_eq!(said.count(), 2, "denied, and judged by name");
    }
}
