//! Network policy: as asked for, and as compiled for the node.
//!
//! A policy is parsed at the API, compiled once here to plain rules, and travels compiled.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

mod domain;

pub use domain::{DOMAIN_CHARS_MAX, DomainName, DomainPattern, NotADomain};

/// Never reached from a sandbox unless the operator opens a range by name: this host, private and
/// shared networks, link-local with the metadata services, the metadata services that clouds keep
/// at other addresses, multicast, reserved and broadcast. The packet filter holds to it for what a
/// sandbox sends, the egress process for what it does in a sandbox's name.
pub const CLOSED_RANGES: [Ipv4Net; 11] = [
    closed([0, 0, 0, 0], 8),
    closed([10, 0, 0, 0], 8),
    closed([100, 64, 0, 0], 10),
    closed([127, 0, 0, 0], 8),
    closed([168, 63, 129, 16], 32),
    closed([169, 254, 0, 0], 16),
    closed([172, 16, 0, 0], 12),
    closed([192, 0, 0, 0], 24),
    closed([192, 168, 0, 0], 16),
    closed([224, 0, 0, 0], 4),
    closed([240, 0, 0, 0], 4),
];

const fn closed([a, b, c, d]: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

/// Whether an address is in a closed range; `opened` are those that the operator opens by name.
pub fn is_closed(address: Ipv4Addr, opened: &[IpNet]) -> bool {
    CLOSED_RANGES.iter().any(|range| range.contains(&address))
        && !opened
            .iter()
            .any(|range| range.contains(&IpAddr::V4(address)))
}

/// What the owner of a sandbox asked for; kept and shown as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// `None` was never said; `Some(false)` closes everything that `allow_out` does not open.
    pub allow_internet_access: Option<bool>,
    /// Addresses, ranges and domains, as written. They win over `deny_out`.
    pub allow_out: Option<Vec<String>>,
    /// Addresses and ranges, as written.
    pub deny_out: Option<Vec<String>>,
    /// Who is asked for names, as written; `None` and an empty list are the host's own servers.
    #[serde(default)]
    pub dns_servers: Option<Vec<String>>,
}

/// Plain rules for one slot. Order of judgement for a packet that leaves the sandbox: closed
/// ranges of the platform (nobody's policy opens them), `allow`, `deny`, open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledPolicy {
    /// Destinations that stay open whatever `deny` says.
    pub allow: Vec<IpNet>,
    /// Destinations that are refused.
    pub deny: Vec<IpNet>,
    /// Whether the resolver answers this sandbox for every name. It does not when nothing but
    /// literal addresses and some domains can be reached: names would then only carry data out.
    pub dns: bool,
    /// Names that stay open whatever `deny` says, by TLS on port 443 and HTTP on port 80, and that
    /// the resolver answers though `dns` is off. An older node that does not know the field opens
    /// none of them.
    #[serde(default)]
    pub domains: Vec<DomainPattern>,
    /// The name servers that the resolver asks for this sandbox; none are the host's.
    #[serde(default)]
    pub dns_servers: Vec<Ipv4Addr>,
}

/// Why an entry of a policy is refused. The texts are E2B's (`api.md` 3.2.3).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("invalid denied CIDR {0}")]
    Denied(String),
    #[error("invalid allowed address {0}")]
    Allowed(String),
    #[error(
        "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny out \
         to block all other traffic."
    )]
    DomainsNeedDenyAll,
    #[error("at most {max} entries are allowed in allowOut and denyOut together, got {count}")]
    TooMany { count: usize, max: usize },
    #[error("at most {max} domains are allowed in allowOut, got {count}")]
    TooManyDomains { count: usize, max: usize },
    #[error("invalid DNS server {0}: dnsServers are IPv4 addresses")]
    DnsServer(String),
    #[error("DNS server {0} is in a range that sandboxes cannot reach")]
    DnsServerClosed(Ipv4Addr),
    #[error("at most {max} entries are allowed in dnsServers, got {count}")]
    TooManyDnsServers { count: usize, max: usize },
}

const EVERYTHING_V4: &str = "0.0.0.0/0";
/// Bits before the IPv4 address in one of IPv6 that stands for it.
const MAPPED_PREFIX_LEN: u8 = 96;

impl CompiledPolicy {
    /// The policy of a sandbox that asked for nothing.
    pub fn open() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            dns: true,
            domains: Vec::new(),
            dns_servers: Vec::new(),
        }
    }

    /// Whether a slot needs no rules of its own in the packet filter: as with
    /// [`CompiledPolicy::open`].
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty() && self.domains.is_empty() && self.dns
    }

    /// Refuses name servers that the sandbox could not reach itself: asking them for it would be a
    /// hole. `opened` are the closed ranges that the operator opens by name.
    pub fn check_dns_servers(&self, opened: &[IpNet]) -> Result<(), PolicyError> {
        match self.dns_servers.iter().find(|s| is_closed(**s, opened)) {
            Some(server) => Err(PolicyError::DnsServerClosed(*server)),
            None => Ok(()),
        }
    }

    fn denies_everything(&self) -> bool {
        self.deny
            .iter()
            .any(|net| net.prefix_len() == 0 && net.addr().is_ipv4())
    }
}

impl NetworkPolicy {
    /// Checks and compiles; the first wrong entry is named.
    pub fn compile(&self) -> Result<CompiledPolicy, PolicyError> {
        let allow_out = self.allow_out.as_deref().unwrap_or_default();
        let deny_out = self.deny_out.as_deref().unwrap_or_default();
        let (count, max) = (
            allow_out.len() + deny_out.len(),
            crate::limits::NETWORK_RULES_MAX,
        );
        if count > max {
            return Err(PolicyError::TooMany { count, max });
        }
        let mut deny = deny_out
            .iter()
            .map(|text| denied(text))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut allow, mut domains) = (Vec::with_capacity(allow_out.len()), Vec::new());
        for text in allow_out {
            match (range(text), DomainPattern::parse(text)) {
                (Some(net), _) if !unspecified(&net) => allow.push(net),
                (None, Some(domain)) => domains.push(domain),
                _ => return Err(PolicyError::Allowed(text.clone())),
            }
        }
        if !domains.is_empty() && !deny_out.iter().any(|text| text == EVERYTHING_V4) {
            return Err(PolicyError::DomainsNeedDenyAll);
        }
        let (count, max) = (domains.len(), crate::limits::NETWORK_DOMAINS_MAX);
        if count > max {
            return Err(PolicyError::TooManyDomains { count, max });
        }
        if self.allow_internet_access == Some(false) {
            deny = vec![range(EVERYTHING_V4).expect("a literal range parses")];
        }
        let mut policy = CompiledPolicy {
            allow,
            deny,
            dns: domains.contains(&DomainPattern::All),
            domains,
            dns_servers: self.compile_dns_servers()?,
        };
        policy.dns |= !policy.denies_everything();
        Ok(policy)
    }

    fn compile_dns_servers(&self) -> Result<Vec<Ipv4Addr>, PolicyError> {
        let texts = self.dns_servers.as_deref().unwrap_or_default();
        let (count, max) = (texts.len(), crate::limits::DNS_SERVERS_MAX);
        if count > max {
            return Err(PolicyError::TooManyDnsServers { count, max });
        }
        let server = |text: &String| {
            let parsed = text.parse::<Ipv4Addr>();
            parsed.map_err(|_| PolicyError::DnsServer(text.clone()))
        };
        texts.iter().map(server).collect()
    }
}

fn denied(text: &str) -> Result<IpNet, PolicyError> {
    match range(text) {
        Some(net) if text == EVERYTHING_V4 || !unspecified(&net) => Ok(net),
        _ => Err(PolicyError::Denied(text.into())),
    }
}

/// An address or a range; a bare address is a range of one. What stands for IPv4 addresses in IPv6
/// (`::ffff:8.8.8.8`) is those addresses: packets to them leave a sandbox as IPv4.
fn range(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let net = net.trunc();
    Some(mapped(&net).map_or(net, IpNet::V4))
}

/// The IPv4 addresses that a range of IPv6 stands for, if it holds nothing else.
fn mapped(net: &IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(net) = net else { return None };
    let address = net.network().to_ipv4_mapped()?;
    let bits = net.prefix_len().checked_sub(MAPPED_PREFIX_LEN)?;
    Ipv4Net::new(address, bits).ok()
}

fn unspecified(net: &IpNet) -> bool {
    net.addr().is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(internet: Option<bool>, allow: &[&str], deny: &[&str]) -> NetworkPolicy {
        let list = |texts: &[&str]| Some(texts.iter().map(|t| (*t).to_string()).collect());
        NetworkPolicy {
            allow_internet_access: internet,
            allow_out: list(allow),
            deny_out: list(deny),
            dns_servers: None,
        }
    }

    fn with_dns_servers(servers: &[&str]) -> NetworkPolicy {
        NetworkPolicy {
            dns_servers: Some(servers.iter().map(|s| (*s).to_string()).collect()),
            ..NetworkPolicy::default()
        }
    }

    #[track_caller]
    fn check_refused(policy: &NetworkPolicy, message: &str) {
        assert_eq!(
            policy.compile().map_err(|e| e.to_string()),
            Err(message.into())
        );
    }

    #[test]
    fn nothing_asked_for_is_open() {
        assert!(
            NetworkPolicy::default()
                .compile()
                .is_ok_and(|p| p.is_open())
        );
        assert!(
            policy(Some(true), &[], &[])
                .compile()
                .is_ok_and(|p| p.is_open())
        );
    }

    #[test]
    fn internet_off_overrides_denials_but_not_allowances() {
        let compiled = policy(Some(false), &["8.8.8.8"], &["1.1.1.1"])
            .compile()
            .unwrap();
        assert_eq!(compiled.allow, vec!["8.8.8.8/32".parse().unwrap()]);
        assert_eq!(compiled.deny, vec!["0.0.0.0/0".parse().unwrap()]);
        assert!(!compiled.dns);
    }

    #[test]
    fn wrong_entries_are_named() {
        check_refused(
            &policy(None, &[], &["example.com"]),
            "invalid denied CIDR example.com",
        );
        check_refused(
            &policy(None, &[], &["0.0.0.0"]),
            "invalid denied CIDR 0.0.0.0",
        );
        check_refused(
            &policy(None, &["0.0.0.0/0"], &[]),
            "invalid allowed address 0.0.0.0/0",
        );
        check_refused(&policy(None, &["::"], &[]), "invalid allowed address ::");
        check_refused(
            &policy(None, &["1.2.3.4/33"], &[]),
            "invalid allowed address 1.2.3.4/33",
        );
        check_refused(
            &policy(None, &["example.com"], &["8.8.8.8"]),
            "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny \
             out to block all other traffic.",
        );
        check_refused(
            &policy(None, &["a.*.com"], &["0.0.0.0/0"]),
            "invalid allowed address a.*.com",
        );
        check_refused(
            &policy(None, &["b\u{fc}cher.example"], &["0.0.0.0/0"]),
            "invalid allowed address b\u{fc}cher.example",
        );
        check_refused(
            &policy(None, &["a.com"; 257], &["0.0.0.0/0"]),
            "at most 256 domains are allowed in allowOut, got 257",
        );
    }

    #[test]
    fn domains_open_names_and_nothing_else() {
        let compiled = policy(None, &["*.Example.com", "8.8.8.8"], &["0.0.0.0/0"])
            .compile()
            .unwrap();
        let domains = [DomainPattern::parse("*.example.com").unwrap()];
        assert_eq!(compiled.domains, domains);
        assert_eq!(compiled.allow, vec!["8.8.8.8/32".parse().unwrap()]);
        assert!(!compiled.dns, "only names that match are answered");
        assert!(!compiled.is_open());
        let all = policy(Some(false), &["*"], &["0.0.0.0/0"])
            .compile()
            .unwrap();
        assert!(all.dns, "every name matches");
    }

    #[test]
    fn dns_servers_are_a_few_ipv4_addresses() {
        let compiled = with_dns_servers(&["1.1.1.1", "10.0.0.53"])
            .compile()
            .unwrap();
        assert_eq!(compiled.dns_servers.len(), 2);
        assert!(compiled.is_open(), "the packet filter need not know");
        assert_eq!(
            compiled.check_dns_servers(&[]),
            Err(PolicyError::DnsServerClosed([10, 0, 0, 53].into()))
        );
        let opened = ["10.0.0.0/24".parse().unwrap()];
        assert_eq!(compiled.check_dns_servers(&opened), Ok(()));
        for wrong in [
            "::1",
            "dns.google",
            "1.1.1.1/32",
            "1.1.1.1:53",
            "",
            "01.1.1.1",
        ] {
            check_refused(
                &with_dns_servers(&[wrong]),
                &format!("invalid DNS server {wrong}: dnsServers are IPv4 addresses"),
            );
        }
        check_refused(
            &with_dns_servers(&["1.1.1.1"; 11]),
            "at most 10 entries are allowed in dnsServers, got 11",
        );
    }

    #[test]
    fn policies_of_older_versions_are_read() {
        let compiled: CompiledPolicy =
            serde_json::from_str(r#"{"allow":["8.8.8.8/32"],"deny":["0.0.0.0/0"],"dns":false}"#)
                .unwrap();
        assert_eq!((compiled.domains.len(), compiled.dns_servers.len()), (0, 0));
        let asked: NetworkPolicy = serde_json::from_str(
            r#"{"allow_internet_access":null,"allow_out":[],"deny_out":null}"#,
        )
        .unwrap();
        assert_eq!(asked.dns_servers, None);
    }

    #[test]
    fn host_bits_are_cut() {
        let compiled = policy(None, &[], &["10.1.2.3/8", "2001:db8::1"])
            .compile()
            .unwrap();
        let expected = [
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8::1/128".parse().unwrap(),
        ];
        assert_eq!(compiled.deny, expected);
        assert!(compiled.dns);
    }

    #[test]
    fn mapped_addresses_are_the_ipv4_ones() {
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            let parsed = texts.iter().map(|text| text.parse());
            parsed.collect::<Result<_, _>>().unwrap()
        };
        let mapped = ["::ffff:8.8.8.8", "::FFFF:a09:807/120", "::ffff:9.1.1.1/104"];
        let expected = nets(&["8.8.8.8/32", "10.9.8.0/24", "9.0.0.0/8"]);
        let compiled = policy(None, &mapped, &mapped).compile().unwrap();
        assert_eq!(compiled.deny, expected);
        assert_eq!(compiled.allow, expected);
        // Wider ranges are of IPv6, and so are other ways to write IPv4 in them.
        let others = ["::fffe:0:0/95", "64:ff9b::808:808/128", "::8.8.8.8/128"];
        let compiled = policy(None, &[], &others).compile().unwrap();
        assert_eq!(compiled.deny, nets(&others));
    }

    #[test]
    fn mapped_addresses_meet_the_same_checks() {
        for everything in ["::ffff:0.0.0.0", "::ffff:0:0/96", "::ffff:0.0.0.0/104"] {
            check_refused(
                &policy(None, &[everything], &[]),
                &format!("invalid allowed address {everything}"),
            );
            check_refused(
                &policy(None, &[], &[everything]),
                &format!("invalid denied CIDR {everything}"),
            );
        }
        // Closed ranges are closed whoever allows them, once they are told apart.
        let compiled = policy(None, &["::ffff:10.0.0.1"], &[]).compile().unwrap();
        let [IpNet::V4(private)] = compiled.allow[..] else {
            panic!("{:?}", compiled.allow);
        };
        assert!(is_closed(private.addr(), &[]));
    }
}
