//! `casemate cluster`: lets machines into a cluster and looks after its nodes, over any API server.

mod drain;

use anyhow::{Context, bail};
use casemate_client::api::{ClusterNode, NewJoinToken};
use serde_json::json;

use super::server::ServerArgs;
use super::table::table;
use crate::command::join::JoinRole;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Make a token with which machines join, and show it, this once.
    Token {
        /// As what they join.
        #[arg(long)]
        role: JoinRole,
        /// How long it is good, such as 30m, 1h or 7d; 30d at most.
        #[arg(long, default_value = "1h", value_parser = seconds)]
        lasts: u64,
        /// How often it may be used.
        #[arg(long, default_value_t = 1)]
        uses: u32,
    },
    /// List the nodes that joined.
    Nodes,
    /// Give a node no new sandboxes; those that it has stay.
    Cordon { node: String },
    /// Have all leave a node whose machine is to be taken away: it gets nothing new, and what is
    /// paused there is stored in the bucket at once. What runs goes on to its end, or is paused.
    Drain(drain::Args),
    /// Give a node new sandboxes again.
    Uncordon { node: String },
    /// Give a node up for lost, whose machine is surely off or cut off for good: what ran there is
    /// not there and takes no places until it returns. By itself that happens after a while.
    Fence { node: String },
    /// Speak with a node no more; its certificate is not renewed, and its sandboxes are over, but for
    /// paused ones whose files are stored. One that has others, and is not lost, is removed by force
    /// only.
    Remove {
        node: String,
        /// Also with sandboxes.
        #[arg(long)]
        force: bool,
        /// It is an edge.
        #[arg(long)]
        edge: bool,
    },
}

pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let admin = args.server.connect_admin()?;
    let (node, done, found) = match args.verb {
        Verb::Token { role, lasts, uses } => {
            let role = match role {
                JoinRole::Node => "node",
                JoinRole::Edge => "edge",
            };
            let wanted = NewJoinToken {
                role: role.into(),
                lasts_seconds: Some(lasts),
                uses: Some(uses),
            };
            let made = admin.join_token(&wanted).await?;
            output.value(&json!({"id": made.id, "token": made.token}), || {
                made.token.clone()
            });
            return Ok(());
        }
        Verb::Nodes => {
            let nodes = admin.cluster_nodes().await?;
            output.value(&nodes, || show(&nodes));
            return Ok(());
        }
        Verb::Cordon { node } => {
            let found = admin.node_standing(&node, "cordoned").await?;
            (node, "cordoned", found)
        }
        Verb::Drain(args) => return drain::run(&admin, args, output).await,
        Verb::Uncordon { node } => {
            let found = admin.node_standing(&node, "open").await?;
            (node, "open", found)
        }
        Verb::Fence { node } => {
            let found = admin.node_fence(&node).await?;
            (node, "lost", found)
        }
        Verb::Remove {
            node,
            force,
            edge: false,
        } => match admin.node_remove(&node, force).await? {
            Some(ended) => {
                let (running, paused) = (ended.running, ended.paused);
                let value =
                    json!({"name": node, "is": "removed", "running": running, "paused": paused});
                output.value(&value, || {
                    format!(
                        "{node} is removed, and with it {running} running and {paused} paused \
                         sandboxes"
                    )
                });
                return Ok(());
            }
            None => (node, "removed", false),
        },
        Verb::Remove {
            node, edge: true, ..
        } => {
            let found = admin.edge_remove(&node).await?;
            (node, "removed", found)
        }
    };
    if !found {
        bail!("the cluster has no {node}: `casemate cluster nodes` shows its nodes");
    }
    output.value(&json!({"name": node, "is": done}), || {
        format!("{node} is {done}")
    });
    Ok(())
}

fn show(nodes: &[ClusterNode]) -> String {
    let row = |node: &ClusterNode| {
        let labels = node
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        [
            node.node_id.clone(),
            node.address.clone(),
            match node.lost_at {
                Some(at) => format!("lost since {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
                None => node.standing.clone(),
            },
            match node.connected {
                true => "yes".to_owned(),
                false => "no".to_owned(),
            },
            node.sandboxes
                .map_or_else(|| "-".to_owned(), |count| count.to_string()),
            node.left.as_ref().map_or_else(String::new, |left| {
                format!(
                    "{} running, {} paused, {} not stored",
                    left.running,
                    left.paused,
                    left.unstored + left.artifacts
                )
            }),
            labels.collect::<Vec<_>>().join(","),
        ]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    let head = [
        "NODE",
        "ADDRESS",
        "STANDING",
        "CONNECTED",
        "SANDBOXES",
        "LEFT",
        "LABELS",
    ];
    table(head, &rows)
}

/// `90`, `90s`, `30m`, `1h`, `7d`.
fn seconds(text: &str) -> anyhow::Result<u64> {
    let (number, each) = match text.chars().last() {
        Some('s') => (&text[..text.len() - 1], 1),
        Some('m') => (&text[..text.len() - 1], 60),
        Some('h') => (&text[..text.len() - 1], 3600),
        Some('d') => (&text[..text.len() - 1], 24 * 3600),
        _ => (text, 1),
    };
    let number: u64 = number
        .parse()
        .with_context(|| format!("{text:?} is no time such as 30m, 1h or 7d"))?;
    Ok(number.saturating_mul(each))
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_have_a_unit_or_are_seconds() {
        for (text, expected) in [
            ("90", 90),
            ("90s", 90),
            ("30m", 1800),
            ("1h", 3600),
            ("2d", 172_800),
        ] {
            assert_eq!(seconds(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "h", "-1h", "1y", "1.5h", "ä"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
