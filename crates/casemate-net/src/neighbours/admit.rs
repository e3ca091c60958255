//! Adding the rules that let slots pass, and taking them away. Every rule carries the instance.

use serde_json::Value;

use super::{Firewall, Hook, Neighbour, Who, describe, obstacles};
use crate::names::Names;
use crate::{NetError, Subnet, tool};

/// Where rules may have been put with `iptables`.
const IPTABLES_CHAINS: [&str; 3] = ["DOCKER-USER", "FORWARD", "INPUT"];

/// What a chain of `iptables` must let pass, as arguments.
pub(super) fn iptables_rules(hook: Hook, link: &str) -> Vec<Vec<String>> {
    let words = |text: String| text.split(' ').map(String::from).collect();
    let to = words(format!("-i {link}+ -j ACCEPT"));
    let back = words(format!(
        "-o {link}+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    ));
    match hook {
        Hook::Forward => vec![to, back],
        Hook::Input => vec![to],
    }
}

/// The same for a chain of `nft`.
pub(super) fn nft_rules(hook: Hook, link: &str) -> Vec<String> {
    let to = format!("iifname \"{link}*\" accept");
    let back = format!("oifname \"{link}*\" ct state established,related accept");
    match hook {
        Hook::Forward => vec![to, back],
        Hook::Input => vec![to],
    }
}

/// Lets an instance's slots pass wherever they would be refused. Answers those firewalls that only
/// their own tools can be told. Can be repeated, and should be: others flush what they find.
pub(crate) fn admit(names: &Names, subnet: Subnet) -> Result<Vec<Neighbour>, NetError> {
    let who = Who::instance(names, subnet);
    let comment = names.table();
    let mut left = Vec::new();
    for obstacle in obstacles()? {
        match &obstacle.firewall {
            Firewall::Firewalld | Firewall::Ufw => left.push(describe(&obstacle, &who)),
            Firewall::Iptables { program, chain } => {
                for rule in iptables_rules(obstacle.hook, &who.link) {
                    let there = iptables(program, "-C", chain, &rule, &comment).is_ok();
                    if !there {
                        iptables(program, "-I", chain, &rule, &comment)?;
                    }
                }
            }
            Firewall::Nft {
                family,
                table,
                chain,
            } => {
                let place = format!("{family} {table} {chain}");
                if nft_handles(&[family, table, chain], &comment)?.is_empty() {
                    let rules = nft_rules(obstacle.hook, &who.link);
                    let text: String = rules
                        .iter()
                        .map(|rule| format!("insert rule {place} {rule} comment \"{comment}\"\n"))
                        .collect();
                    tool::nft_load(&text)?;
                }
            }
        }
    }
    Ok(left)
}

/// Takes away what [`admit`] added. What cannot be asked or is gone already is no error.
pub(crate) fn withdraw(names: &Names, subnet: Subnet) -> Result<(), NetError> {
    let who = Who::instance(names, subnet);
    let comment = names.table();
    for obstacle in obstacles()? {
        match &obstacle.firewall {
            Firewall::Firewalld | Firewall::Ufw | Firewall::Iptables { .. } => {}
            Firewall::Nft {
                family,
                table,
                chain,
            } => {
                for handle in nft_handles(&[family, table, chain], &comment)? {
                    tool::nft_load(&format!(
                        "delete rule {family} {table} {chain} handle {handle}\n"
                    ))?;
                }
            }
        }
    }
    // Docker may have come or gone since, so the chain is not the one that would be taken now.
    for program in ["iptables", "iptables-legacy"] {
        for chain in IPTABLES_CHAINS {
            for rule in iptables_rules(Hook::Forward, &who.link) {
                while iptables(program, "-C", chain, &rule, &comment).is_ok() {
                    iptables(program, "-D", chain, &rule, &comment)?;
                }
            }
        }
    }
    Ok(())
}

fn iptables(
    program: &'static str,
    command: &str,
    chain: &str,
    rule: &[String],
    comment: &str,
) -> Result<(), NetError> {
    let mut args = vec!["-w", command, chain, "-m", "comment", "--comment", comment];
    args.extend(rule.iter().map(String::as_str));
    tool::run(program, &args, "").map(drop)
}

/// The handles of the rules in a chain that carry the comment.
fn nft_handles(place: &[&str; 3], comment: &str) -> Result<Vec<u64>, NetError> {
    let [family, table, chain] = *place;
    let listed = tool::run(
        "nft",
        &["-j", "-a", "list", "chain", family, table, chain],
        "",
    )?;
    let listed: Value = serde_json::from_slice(&listed).unwrap_or_default();
    let items = listed["nftables"].as_array().cloned().unwrap_or_default();
    let ours = items.iter().filter_map(|item| {
        let rule = item.get("rule")?;
        (rule.get("comment")?.as_str()? == comment).then(|| rule.get("handle")?.as_u64())?
    });
    Ok(ours.collect())
}
