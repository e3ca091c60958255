//! Layers made of snapshots: none goes that lies below a sandbox.
//!
//! Who has which is in the table, put there before a create looks for its layers. A layer that is
//! being removed is noted in the table, too, under the same lock: a create that names it comes
//! either before that, and it stays, or after it, and is refused.

use std::os::unix::net::UnixStream;

use casemate_rpc::{NodeError, SNAPSHOTS_PAGE, SealReply};
use casemate_runtime::{CarryError, SnapshotError};
use casemate_types::{LayerId, Portable, SandboxId, SnapshotId, chain};

use crate::node::{Inner, internal, snapshot_error};
use crate::table::Table;

impl Inner {
    pub(crate) async fn seal(
        &self,
        snapshot: &SnapshotId,
        layer: &LayerId,
    ) -> Result<SealReply, NodeError> {
        let sealed = self.snapshots.seal(snapshot, layer).await;
        let bytes = sealed.map_err(|failed| match failed {
            SnapshotError::Capacity(_) => NodeError::DiskFull {
                what: "the disk has no room for a layer".into(),
            },
            other => snapshot_error(other),
        })?;
        Ok(SealReply { bytes })
    }

    pub(crate) async fn remove_layer(&self, layer: &LayerId) -> Result<(), NodeError> {
        let _removing = Removing::begin(self, layer)?;
        let removed = self.snapshots.remove_layer(layer).await;
        removed.map_err(snapshot_error)
    }

    pub(crate) async fn layers(&self, after: Option<&LayerId>) -> Result<Vec<LayerId>, NodeError> {
        let all = self.snapshots.layers().await.map_err(snapshot_error)?;
        let asked = all
            .into_iter()
            .filter(|layer| after.is_none_or(|after| layer > after));
        Ok(asked.take(SNAPSHOTS_PAGE).collect())
    }

    pub(crate) async fn missing(
        &self,
        layers: &[String],
        files: Option<&SnapshotId>,
    ) -> Result<Vec<String>, NodeError> {
        let (offer, leaving) = {
            let table = self.lock();
            (table.offer.clone(), table.leaving.clone())
        };
        let is_here = |name: &String| {
            let is_leaving = leaving.iter().any(|layer| layer.as_str() == name);
            !is_leaving && offer.layer(name).is_ok()
        };
        let gone = layers.iter().filter(|name| !is_here(name));
        let mut missing: Vec<String> = gone.cloned().collect();
        if let Some(files) = files
            && !self.snapshots.has(files).await.map_err(snapshot_error)?
        {
            missing.push(files.to_string());
        }
        Ok(missing)
    }

    pub(crate) async fn pack(&self, what: &Portable, to: UnixStream) -> Result<(), NodeError> {
        let _stays = match what {
            Portable::Layer(layer) => Some(Packing::begin(self, layer)?),
            // One that is removed meanwhile breaks off.
            Portable::Snapshot(_) => None,
        };
        self.snapshots.pack(what, to).await.map_err(carry_error)
    }

    pub(crate) async fn unpack(&self, what: &Portable, from: UnixStream) -> Result<u64, NodeError> {
        let unpacked = self.snapshots.unpack(what, from).await;
        unpacked.map_err(carry_error)
    }

    /// A sandbox that is in the table is about to be made anew over these.
    pub(crate) fn hold_layers(
        &self,
        sandbox: &SandboxId,
        layers: &[String],
    ) -> Result<(), NodeError> {
        let mut table = self.lock();
        table.refuse_leaving(layers)?;
        if let Some(row) = table.sandboxes.get_mut(sandbox) {
            row.layers_mut().extend_from_slice(layers);
        }
        Ok(())
    }
}

fn carry_error(error: CarryError) -> NodeError {
    match error {
        CarryError::NotHere(what) => NodeError::NotHere(what),
        CarryError::Capacity(what) => NodeError::DiskFull {
            what: format!("the disk has no room for {what}"),
        },
        CarryError::Stream { ref what, .. } => NodeError::CarryFailed {
            what: what.clone(),
            why: chain(&error),
        },
        CarryError::Step { .. } => internal(&error),
    }
}

impl Table {
    /// [`NodeError::Unsupported`] where one of these is being removed.
    pub(crate) fn refuse_leaving(&self, layers: &[String]) -> Result<(), NodeError> {
        let leaving = |name: &&String| self.leaving.iter().any(|one| one.as_str() == *name);
        match layers.iter().find(leaving) {
            None => Ok(()),
            Some(name) => Err(NodeError::Unsupported {
                why: format!("layer {name:?} is not on this node any more"),
            }),
        }
    }
}

/// A layer stays while it lives.
struct Packing<'a> {
    node: &'a Inner,
    layer: &'a LayerId,
}

impl<'a> Packing<'a> {
    fn begin(node: &'a Inner, layer: &'a LayerId) -> Result<Self, NodeError> {
        let mut table = node.lock();
        if table.leaving.contains(layer) {
            return Err(NodeError::NotHere(Portable::Layer(layer.clone())));
        }
        *table.packed.entry(layer.clone()).or_default() += 1;
        Ok(Self { node, layer })
    }
}

impl Drop for Packing<'_> {
    fn drop(&mut self) {
        let mut table = self.node.lock();
        if let Some(times) = table.packed.get_mut(self.layer) {
            *times -= 1;
            if *times == 0 {
                table.packed.remove(self.layer);
            }
        }
    }
}

/// Nobody begins with a layer while it lives.
struct Removing<'a> {
    node: &'a Inner,
    layer: &'a LayerId,
}

impl<'a> Removing<'a> {
    fn begin(node: &'a Inner, layer: &'a LayerId) -> Result<Self, NodeError> {
        let mut table = node.lock();
        let name = layer.as_str();
        let mut below = table.sandboxes.values().flat_map(|row| row.layers());
        if below.any(|one| one == name) || table.packed.contains_key(layer) {
            return Err(NodeError::InUse(layer.clone()));
        }
        table.leaving.insert(layer.clone());
        Ok(Self { node, layer })
    }
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        self.node.lock().leaving.remove(self.layer);
    }
}
