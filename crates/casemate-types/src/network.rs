//! Network policy: as asked for, and as compiled for the node.
//!
//! A policy is parsed at the API, compiled once here to plain rules, and travels compiled.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What the owner of a sandbox asked for; kept and shown as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// `None` was never said; `Some(false)` closes everything that `allow_out` does not open.
    pub allow_internet_access: Option<bool>,
    /// Addresses and ranges, as written. They win over `deny_out`.
    pub allow_out: Option<Vec<String>>,
    /// Addresses and ranges, as written.
    pub deny_out: Option<Vec<String>>,
}

/// Plain rules for one slot. Order of judgement for a packet that leaves the sandbox: closed
/// ranges of the platform (nobody's policy opens them), `allow`, `deny`, open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledPolicy {
    /// Destinations that stay open whatever `deny` says.
    pub allow: Vec<IpNet>,
    /// Destinations that are refused.
    pub deny: Vec<IpNet>,
    /// Whether the resolver answers this sandbox. It does not when nothing but literal
    /// addresses can be reached: names would then only carry data out.
    pub dns: bool,
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
    /// Domain rules need the egress proxy, which comes with "The life of a sandbox".
    #[error("domains in 'allowOut' are not available in this version of Casemate: {0}")]
    DomainsUnavailable(String),
    #[error("at most {max} entries are allowed in allowOut and denyOut together, got {count}")]
    TooMany { count: usize, max: usize },
}

const EVERYTHING_V4: &str = "0.0.0.0/0";

impl CompiledPolicy {
    /// The policy of a sandbox that asked for nothing.
    pub fn open() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            dns: true,
        }
    }

    /// Whether this is [`CompiledPolicy::open`], for which a slot needs no rules of its own.
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty() && self.dns
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
        let mut allow = Vec::with_capacity(allow_out.len());
        let mut domain = None;
        for text in allow_out {
            match range(text) {
                Some(net) if unspecified(&net) => return Err(PolicyError::Allowed(text.clone())),
                Some(net) => allow.push(net),
                None if looks_like_domain(text) => domain = domain.or(Some(text)),
                None => return Err(PolicyError::Allowed(text.clone())),
            }
        }
        if let Some(domain) = domain {
            return Err(if deny_out.iter().any(|text| text == EVERYTHING_V4) {
                PolicyError::DomainsUnavailable(domain.clone())
            } else {
                PolicyError::DomainsNeedDenyAll
            });
        }
        if self.allow_internet_access == Some(false) {
            deny = vec![range(EVERYTHING_V4).expect("a literal range parses")];
        }
        let mut policy = CompiledPolicy {
            allow,
            deny,
            dns: true,
        };
        policy.dns = !policy.denies_everything();
        Ok(policy)
    }
}

fn denied(text: &str) -> Result<IpNet, PolicyError> {
    match range(text) {
        Some(net) if text == EVERYTHING_V4 || !unspecified(&net) => Ok(net),
        _ => Err(PolicyError::Denied(text.into())),
    }
}

/// An address or a range; a bare address is a range of one.
fn range(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<std::net::IpAddr>().ok()?),
    };
    Some(net.trunc())
}

fn unspecified(net: &IpNet) -> bool {
    net.addr().is_unspecified()
}

fn looks_like_domain(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if text == "*" {
        return true;
    }
    let label = |l: &str| {
        !l.is_empty() && l.len() <= 63 && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    name.len() <= 253 && name.split('.').all(label) && name.chars().any(|c| c.is_ascii_alphabetic())
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
            &policy(None, &["*.example.com"], &["0.0.0.0/0"]),
            "domains in 'allowOut' are not available in this version of Casemate: *.example.com",
        );
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
}
