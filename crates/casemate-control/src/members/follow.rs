//! The nodes that this server speaks with are those in the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use casemate_store::{Node, NodeStanding};
use casemate_types::chain;
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
    let (mut spoken, mut said) = (BTreeMap::<String, String>::new(), false);
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

/// `spoken`: with whom we speak, and where.
fn look(
    control: &Arc<Control>,
    nodes: &[Node],
    spoken: &mut BTreeMap<String, String>,
    connect: &impl Fn(&Node) -> NodeLink,
) {
    let gone: Vec<String> = spoken
        .iter()
        .filter(|(name, address)| {
            !nodes
                .iter()
                .any(|node| (&node.id, &node.address) == (*name, *address))
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
            spoken.insert(node.id.clone(), address);
        }
        control.node_place(
            &node.id,
            Place {
                labels: Arc::new(node.labels.clone()),
                isolation: node.isolation.clone(),
                is_open: node.standing == NodeStanding::Open && node.lost_at.is_none(),
                is_draining: node.standing == NodeStanding::Draining,
                lost_at: node.lost_at,
                generation: node.generation,
            },
        );
        if node.standing == NodeStanding::Draining {
            // Again and again: one may have been on its way there.
            control.drop_warm_at(&node.id);
        }
    }
}
