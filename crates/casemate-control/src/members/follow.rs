//! The nodes that this server speaks with are those in the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use casemate_store::{Node, NodeStanding};
use casemate_types::{Timestamp, chain};
use tracing::{info, warn};

use super::Members;
use crate::Control;
use crate::nodes::{NodeLink, Place};

/// How often the store is asked: what another server changed shows after it.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Speaks with every node that joined, through the ports that `connect` makes, and with no other.
/// Never returns; while the store is away all stays as it is.
pub async fn follow(
    control: Arc<Control>,
    members: Arc<Members>,
    connect: impl Fn(&Node) -> NodeLink,
) {
    let mut changed = members.changed.subscribe();
    let (mut spoken, mut said) = (Spoken::new(), false);
    loop {
        changed.mark_unchanged();
        match members.nodes().await {
            Ok(nodes) => {
                said = false;
                look(&control, &nodes, &mut spoken, &connect);
            }
            Err(error) if !said => {
                said = true;
                warn!(
                    error = chain(&error),
                    "it is not known which nodes there are"
                );
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            // The sender is theirs, and they are here.
            _ = changed.changed() => {}
        }
    }
}

/// With whom we speak, where, and since when it is a member: one that was removed and joined again
/// under its name is another one.
type Spoken = BTreeMap<String, (String, Timestamp)>;

fn look(
    control: &Arc<Control>,
    nodes: &[Node],
    spoken: &mut Spoken,
    connect: &impl Fn(&Node) -> NodeLink,
) {
    let gone: Vec<String> = spoken
        .iter()
        .filter(|(name, (address, since))| {
            let is_it =
                |node: &Node| (&node.id, &node.address, &node.joined_at) == (*name, address, since);
            !nodes.iter().any(is_it)
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in gone {
        spoken.remove(&name);
        control.remove_node(&name);
    }
    for node in nodes {
        if !spoken.contains_key(&node.id) {
            let address = node.address.clone();
            info!(node = node.id, address, "speaking with node {}", node.id);
            control.add_node(&node.id, connect(node));
            spoken.insert(node.id.clone(), (address, node.joined_at));
        }
        control.node_place(&node.id, Place::from(node));
        if node.standing == NodeStanding::Draining {
            // Again and again: one may have been on its way there.
            control.drop_warm_at(&node.id);
        }
    }
}
