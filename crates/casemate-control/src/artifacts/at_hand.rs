//! Which layers and files a node has, for placement.

use std::collections::HashSet;
use std::sync::Arc;

use casemate_rpc::{NodeError, SNAPSHOTS_PAGE};
use casemate_store::Build;
use casemate_types::{LayerId, Portable, SnapshotId};

use crate::Control;
use crate::nodes::Node;

/// Lists them, and notes their names at the node.
pub(super) async fn look(control: &Control, node: &Node) -> Result<Vec<Portable>, NodeError> {
    let mut there = Vec::new();
    let mut after: Option<LayerId> = None;
    loop {
        let page = node.port.layers(after.as_ref()).await?;
        let is_last = page.len() < SNAPSHOTS_PAGE;
        after = page.last().cloned();
        there.extend(page.into_iter().map(Portable::Layer));
        if is_last {
            break;
        }
    }
    let mut after: Option<SnapshotId> = None;
    loop {
        let page = node.port.snapshots(after.as_ref()).await?;
        let is_last = page.len() < SNAPSHOTS_PAGE;
        after = page.last().map(|kept| kept.snapshot.clone());
        there.extend(
            page.into_iter()
                .map(|kept| Portable::Snapshot(kept.snapshot)),
        );
        if is_last {
            break;
        }
    }
    let names: HashSet<String> = there.iter().map(name).collect();
    control
        .nodes
        .hear(node, |heard| heard.layers = Arc::new(names));
    Ok(there)
}

pub(super) fn name(what: &Portable) -> String {
    match what {
        Portable::Layer(layer) => layer.to_string(),
        Portable::Snapshot(files) => files.to_string(),
    }
}

impl Node {
    /// It has something new, as far as we know.
    pub(super) fn has(&self, what: &Portable) {
        let mut heard = self.heard();
        let mut layers = HashSet::clone(&heard.layers);
        layers.insert(name(what));
        heard.layers = Arc::new(layers);
    }

    /// Whether all that a build needs and that nodes do not have by themselves is there, as far as we
    /// know.
    pub(crate) fn has_all_of(&self, build: &Build) -> bool {
        let heard = self.heard();
        let mut carried = super::carried_names(build).into_iter();
        carried.all(|name| heard.layers.contains(&name))
    }
}
