//! Programs of the host that we run off the create path, and its other firewalls.

use std::path::Path;

use super::Finding;

/// Looked for where root's are, whatever PATH says.
fn is_there(program: &str) -> bool {
    let usual = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ];
    usual
        .iter()
        .any(|dir| Path::new(dir).join(program).is_file())
}

pub(super) fn required() -> Vec<Finding> {
    let wanted = [("nft", "nftables"), ("mkfs.btrfs", "btrfs-progs")];
    let look = |(program, package): &(&'static str, &str)| {
        if is_there(program) {
            Finding::good(program, "there")
        } else {
            let mend = format!("Run: apt-get install {package}");
            Finding::fatal(program, "not there", mend)
        }
    };
    wanted.iter().map(look).collect()
}

pub(super) fn for_the_base() -> Finding {
    if is_there("mmdebstrap") {
        return Finding::good("mmdebstrap", "there");
    }
    Finding::warning(
        "mmdebstrap",
        "not there: the base template cannot be made here",
        "Run: apt-get install mmdebstrap, or give `up` an archive with --base",
    )
}

pub(super) fn firewalls() -> Vec<Finding> {
    let neighbours = casemate_net::neighbours();
    if neighbours.is_empty() {
        return vec![Finding::good(
            "other firewalls",
            "none that stand in the way",
        )];
    }
    let warn = |found: casemate_net::Neighbour| {
        let mend = format!("Run: {}, or set network.manage_firewall", found.rule);
        Finding::warning("other firewalls", found.words, mend)
    };
    neighbours.into_iter().map(warn).collect()
}
