//! Other firewalls of the host that refuse what ours allows: a packet must please all of them.
//!
//! Finds them, says in plain words what to do, and on the operator's word does it. The rules that are
//! added let slots pass *their* chains; what slots may reach is still judged by ours.

use std::fs;

use serde_json::Value;

use crate::names::{ANY_LINK_PREFIX, Names};
use crate::{NetError, Subnet, tool};

mod admit;

pub(crate) use admit::{admit, withdraw};

/// The range that subnets are leased from unless configured otherwise: for firewalls that know
/// sources but no families of links.
const DEFAULT_RANGE: &str = "100.64.0.0/10";

/// Another firewall that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// What was found, in a sentence for the operator.
    pub words: String,
    /// The command that lets slots pass.
    pub rule: String,
}

/// Whom the operator talks to about the host's packets, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Firewall {
    Firewalld,
    Ufw,
    /// A chain that `program` manages.
    Iptables {
        program: &'static str,
        chain: &'static str,
    },
    /// A chain of somebody's own.
    Nft {
        family: String,
        table: String,
        chain: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    /// From slots to the world, and its answers.
    Forward,
    /// From slots to the resolver.
    Input,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Obstacle {
    firewall: Firewall,
    hook: Hook,
}

/// The host's other firewalls that would refuse slots. Whatever cannot be asked is left out: `nft`
/// itself is looked for elsewhere.
pub fn neighbours() -> Vec<Neighbour> {
    let who = Who {
        link: ANY_LINK_PREFIX.into(),
        source: DEFAULT_RANGE.into(),
    };
    let found = obstacles().unwrap_or_default();
    found
        .iter()
        .map(|obstacle| describe(obstacle, &who))
        .collect()
}

/// Who is to be let through.
struct Who {
    /// What the slots' links begin with.
    link: String,
    /// Where the slots' packets come from.
    source: String,
}

impl Who {
    fn instance(names: &Names, subnet: Subnet) -> Self {
        Self {
            link: names.link_prefix(),
            source: subnet.net().to_string(),
        }
    }
}

fn obstacles() -> Result<Vec<Obstacle>, NetError> {
    let listed = tool::run("nft", &["-j", "list", "chains"], "")?;
    let mut found = obstacles_in(&listed);
    // Rules of the old kind are invisible to `nft`.
    let names = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if names.lines().any(|name| name == "filter") {
        let program = "iptables-legacy";
        for (chain, hook) in [("FORWARD", Hook::Forward), ("INPUT", Hook::Input)] {
            let rules = tool::run(program, &["-w", "-S", chain], "").unwrap_or_default();
            let policy = format!("-P {chain} DROP");
            if String::from_utf8_lossy(&rules).lines().any(|l| l == policy) {
                let firewall = Firewall::Iptables { program, chain };
                found.push(Obstacle { firewall, hook });
            }
        }
    }
    Ok(found)
}

/// Reads `nft -j list chains`.
fn obstacles_in(listed: &[u8]) -> Vec<Obstacle> {
    let listed: Value = serde_json::from_slice(listed).unwrap_or_default();
    let items = listed["nftables"].as_array().cloned().unwrap_or_default();
    let chains: Vec<Chain<'_>> = items.iter().filter_map(Chain::read).collect();
    let has = |name: &str| chains.iter().any(|chain| chain.name == name);
    let mut found: Vec<Obstacle> = Vec::new();
    for chain in &chains {
        let hook = match chain.hook {
            "forward" => Hook::Forward,
            "input" => Hook::Input,
            _ => continue,
        };
        let firewall = match (chain.family, chain.table, chain.name) {
            (_, table, _) if table.starts_with(crate::names::TABLE_PREFIX) => continue,
            // Its chains end in a rule that refuses, whatever their policy.
            ("inet", "firewalld", _) => Firewall::Firewalld,
            _ if chain.policy != "drop" => continue,
            ("ip", "filter", "FORWARD" | "INPUT") if has("ufw-user-forward") => Firewall::Ufw,
            ("ip", "filter", "FORWARD") if has("DOCKER-USER") => iptables("DOCKER-USER"),
            ("ip", "filter", "FORWARD") => iptables("FORWARD"),
            ("ip", "filter", "INPUT") => iptables("INPUT"),
            ("ip6" | "bridge" | "arp", ..) => continue,
            (family, table, name) => Firewall::Nft {
                family: family.into(),
                table: table.into(),
                chain: name.into(),
            },
        };
        let obstacle = Obstacle { firewall, hook };
        // These two open both directions with what is said about the first.
        let said = matches!(obstacle.firewall, Firewall::Firewalld | Firewall::Ufw)
            && found
                .iter()
                .any(|other| other.firewall == obstacle.firewall);
        if !said {
            found.push(obstacle);
        }
    }
    found
}

fn iptables(chain: &'static str) -> Firewall {
    let program = "iptables";
    Firewall::Iptables { program, chain }
}

struct Chain<'a> {
    family: &'a str,
    table: &'a str,
    name: &'a str,
    hook: &'a str,
    policy: &'a str,
}

impl<'a> Chain<'a> {
    fn read(item: &'a Value) -> Option<Self> {
        let chain = item.get("chain")?;
        let text = |key| chain.get(key).and_then(Value::as_str);
        Some(Self {
            family: text("family")?,
            table: text("table")?,
            name: text("name")?,
            hook: text("hook").unwrap_or_default(),
            policy: text("policy").unwrap_or_default(),
        })
    }
}

fn describe(obstacle: &Obstacle, who: &Who) -> Neighbour {
    let what = match obstacle.hook {
        Hook::Forward => "what sandboxes send out",
        Hook::Input => "sandboxes' questions to the resolver",
    };
    let Who { link, source } = who;
    let (name, rule) = match &obstacle.firewall {
        Firewall::Firewalld => (
            "firewalld".to_owned(),
            format!(
                "firewall-cmd --permanent --zone=trusted --add-source={source} && firewall-cmd \
                 --reload"
            ),
        ),
        Firewall::Ufw => (
            "ufw".to_owned(),
            format!("ufw route allow from {source} && ufw allow from {source} to any port 53"),
        ),
        Firewall::Iptables { program, chain } => {
            let rules = admit::iptables_rules(obstacle.hook, link);
            let commands: Vec<String> = rules
                .iter()
                .map(|rule| format!("{program} -I {chain} {}", rule.join(" ")))
                .collect();
            let by = if *chain == "DOCKER-USER" {
                "Docker"
            } else {
                *program
            };
            (format!("{by} (policy DROP)"), commands.join(" && "))
        }
        Firewall::Nft {
            family,
            table,
            chain,
        } => {
            let place = format!("{family} {table} {chain}");
            let rules = admit::nft_rules(obstacle.hook, link);
            let commands: Vec<String> = rules
                .iter()
                .map(|rule| format!("insert rule {place} {rule}"))
                .collect();
            (
                format!("the chain {place} (policy drop)"),
                format!("nft '{}'", commands.join("; ")),
            )
        }
    };
    Neighbour {
        words: format!("{name} refuses {what}"),
        rule,
    }
}

#[cfg(test)]
mod tests;
