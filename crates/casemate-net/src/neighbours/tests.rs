use super::*;

fn chain(family: &str, table: &str, name: &str, hook: &str, policy: &str) -> String {
    format!(
        r#"{{"chain": {{"family": "{family}", "table": "{table}", "name": "{name}", "handle": 1,
            "type": "filter", "hook": "{hook}", "prio": 0, "policy": "{policy}"}}}}"#
    )
}

fn plain(table: &str, name: &str) -> String {
    format!(r#"{{"chain": {{"family": "ip", "table": "{table}", "name": "{name}", "handle": 2}}}}"#)
}

#[track_caller]
fn check(chains: &[String], expected: &[(&str, &str)]) {
    let text = format!(
        r#"{{"nftables": [{{"metainfo": {{}}}}, {}]}}"#,
        chains.join(",")
    );
    let who = Who {
        link: "cm".into(),
        source: "100.64.0.0/10".into(),
    };
    let found: Vec<Neighbour> = obstacles_in(text.as_bytes())
        .iter()
        .map(|obstacle| describe(obstacle, &who))
        .collect();
    let expected: Vec<Neighbour> = expected
        .iter()
        .map(|(words, rule)| Neighbour {
            words: (*words).into(),
            rule: (*rule).into(),
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn open_chains_and_our_own_are_no_obstacle() {
    check(
        &[
            chain("ip", "filter", "FORWARD", "forward", "accept"),
            chain("ip6", "filter", "FORWARD", "forward", "drop"),
            chain("inet", "casemate_ab12cd34", "forward", "forward", "drop"),
            chain("inet", "mine", "out", "output", "drop"),
            plain("filter", "DOCKER-USER"),
        ],
        &[],
    );
    assert!(obstacles_in(b"").is_empty());
    assert!(obstacles_in(b"{\"nftables\": 7}").is_empty());
}

#[test]
fn docker_is_told_in_the_chain_that_it_keeps() {
    check(
        &[
            chain("ip", "filter", "FORWARD", "forward", "drop"),
            plain("filter", "DOCKER-USER"),
        ],
        &[(
            "Docker (policy DROP) refuses what sandboxes send out",
            "iptables -I DOCKER-USER -i cm+ -j ACCEPT && iptables -I DOCKER-USER -o cm+ -m conntrack \
             --ctstate RELATED,ESTABLISHED -j ACCEPT",
        )],
    );
}

#[test]
fn tools_of_their_own_are_told_once() {
    check(
        &[
            chain("ip", "filter", "INPUT", "input", "drop"),
            chain("ip", "filter", "FORWARD", "forward", "drop"),
            plain("filter", "ufw-user-forward"),
        ],
        &[(
            "ufw refuses sandboxes' questions to the resolver",
            "ufw route allow from 100.64.0.0/10 && ufw allow from 100.64.0.0/10 to any port 53",
        )],
    );
    check(
        &[
            chain("inet", "firewalld", "filter_FORWARD", "forward", "accept"),
            chain("inet", "firewalld", "filter_INPUT", "input", "accept"),
        ],
        &[(
            "firewalld refuses what sandboxes send out",
            "firewall-cmd --permanent --zone=trusted --add-source=100.64.0.0/10 && firewall-cmd \
             --reload",
        )],
    );
}

#[test]
fn a_chain_of_ones_own_is_named() {
    check(
        &[
            chain("inet", "filter", "forward", "forward", "drop"),
            chain("inet", "filter", "input", "input", "drop"),
        ],
        &[
            (
                "the chain inet filter forward (policy drop) refuses what sandboxes send out",
                "nft 'insert rule inet filter forward iifname \"cm*\" accept; insert rule inet \
                 filter forward oifname \"cm*\" ct state established,related accept'",
            ),
            (
                "the chain inet filter input (policy drop) refuses sandboxes' questions to the \
                 resolver",
                "nft 'insert rule inet filter input iifname \"cm*\" accept'",
            ),
        ],
    );
}
