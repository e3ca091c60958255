//! Layers made of snapshots: none goes that lies below a sandbox.
//!
//! Who has which is in the table, put there before a create looks for its layers. A layer that is
//! being removed is noted in the table, too, under the same lock: a create that names it comes
//! either before that, and it stays, or after it, and is refused. The same with files that are
//! [evicted](crate::evict).

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use casemate_rpc::{NodeError, SNAPSHOTS_PAGE, SealReply};
use casemate_runtime::{CarryError, SnapshotError};
use casemate_types::{LayerId, Portable, SandboxId, SnapshotId, chain};
use tokio::time::Instant;

use crate::cache;
use crate::node::{Inner, internal, snapshot_error};
use crate::table::Table;

impl Inner {
    pub(crate) async fn seal(
        self: &Arc<Self>,
        snapshot: &SnapshotId,
        layer: &LayerId,
    ) -> Result<SealReply, NodeError> {
        let sealed = loop {
            let sealed = self.snapshots.seal(snapshot, layer).await;
            let is_full = matches!(sealed, Err(SnapshotError::Capacity(_)));
            if !(is_full && self.make_room().await) {
                break sealed;
            }
        };
        let bytes = sealed.map_err(|failed| match failed {
            SnapshotError::Capacity(_) => NodeError::DiskFull {
                what: "the disk has no room for a layer".into(),
            },
            other => snapshot_error(other),
        })?;
        let what = Portable::Layer(layer.clone());
        self.lock().cache.came(&what, bytes, Instant::now());
        Ok(SealReply { bytes })
    }

    pub(crate) async fn remove_layer(self: &Arc<Self>, layer: &LayerId) -> Result<(), NodeError> {
        let leaving = Leaving::begin(self, layer)?;
        let removed = self.snapshots.remove_layer(layer).await;
        removed.map_err(snapshot_error)?;
        self.lock().cache.forget(&leaving.what);
        Ok(())
    }

    pub(crate) async fn remove_snapshot(&self, snapshot: &SnapshotId) -> Result<(), NodeError> {
        let removed = self.snapshots.remove(snapshot).await;
        removed.map_err(snapshot_error)?;
        let what = Portable::Snapshot(snapshot.clone());
        self.lock().cache.forget(&what);
        Ok(())
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
        hold: Option<&str>,
    ) -> Result<Vec<String>, NodeError> {
        let (offer, leaving) = {
            let mut table = self.lock();
            // Before anything is looked for: what is found stays.
            if let Some(hold) = hold {
                let whats = cache::portables(layers, files);
                table.cache.hold(hold, whats, Instant::now());
            }
            (table.offer.clone(), table.leaving.clone())
        };
        let is_here = |name: &String| !is_layer_in(&leaving, name) && offer.layer(name).is_ok();
        let gone = layers.iter().filter(|name| !is_here(name));
        let mut missing: Vec<String> = gone.cloned().collect();
        if let Some(files) = files {
            let is_leaving = leaving.contains(&Portable::Snapshot(files.clone()));
            if is_leaving || !self.snapshots.has(files).await.map_err(snapshot_error)? {
                missing.push(files.to_string());
            }
        }
        Ok(missing)
    }

    pub(crate) async fn pack(&self, what: &Portable, to: UnixStream) -> Result<(), NodeError> {
        // Files that are removed meanwhile, but for their room, break off.
        let packing = Carrying::begin(self, what);
        let _stays = packing.ok_or_else(|| NodeError::NotHere(what.clone()))?;
        self.snapshots.pack(what, to).await.map_err(carry_error)
    }

    pub(crate) async fn unpack(
        self: &Arc<Self>,
        what: &Portable,
        bytes: u64,
        from: UnixStream,
    ) -> Result<u64, NodeError> {
        let _stays = self.carrying_once_left(what).await;
        if !self.is_here(what).await? {
            self.make_room_for(what, bytes).await;
        }
        let unpacked = self.snapshots.unpack(what, from).await;
        let bytes = unpacked.map_err(carry_error)?;
        {
            let mut table = self.lock();
            table.cache.came(what, bytes, Instant::now());
            table
                .cache
                .stored(std::slice::from_ref(what), Instant::now());
        }
        self.note_use(vec![what.clone()]);
        let node = Arc::clone(self);
        self.tasks.spawn(async move { node.keep_bound().await });
        Ok(bytes)
    }

    async fn is_here(&self, what: &Portable) -> Result<bool, NodeError> {
        let is_here = match what {
            Portable::Layer(layer) => {
                let all = self.snapshots.layers().await;
                all.map(|all| all.contains(layer))
            }
            Portable::Snapshot(files) => self.snapshots.has(files).await,
        };
        is_here.map_err(snapshot_error)
    }

    /// What is being removed comes only once nothing of it is here.
    async fn carrying_once_left<'a>(&'a self, what: &'a Portable) -> Carrying<'a> {
        loop {
            let left = self.left.notified();
            if let Some(carrying) = Carrying::begin(self, what) {
                return carrying;
            }
            left.await;
        }
    }

    /// A sandbox that is in the table is about to be made anew over these.
    pub(crate) fn hold_layers(
        &self,
        sandbox: &SandboxId,
        layers: &[String],
    ) -> Result<(), NodeError> {
        {
            let mut table = self.lock();
            table.refuse_leaving(layers, None)?;
            if let Some(row) = table.sandboxes.get_mut(sandbox) {
                row.layers_mut().extend_from_slice(layers);
            }
        }
        self.note_use(cache::portables(layers, None));
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

fn is_layer_in(leaving: &BTreeSet<Portable>, name: &str) -> bool {
    let mut layers = leaving.iter();
    layers.any(|what| matches!(what, Portable::Layer(layer) if layer.as_str() == name))
}

impl Table {
    /// [`NodeError::Unsupported`] where one of these is being removed.
    pub(crate) fn refuse_leaving(
        &self,
        layers: &[String],
        files: Option<&SnapshotId>,
    ) -> Result<(), NodeError> {
        let layer = layers.iter().find(|name| is_layer_in(&self.leaving, name));
        let files = files.filter(|files| {
            let what = Portable::Snapshot((*files).clone());
            self.leaving.contains(&what)
        });
        let leaving = match (layer, files) {
            (Some(name), _) => format!("layer {name:?}"),
            (None, Some(files)) => format!("snapshot {files}"),
            (None, None) => return Ok(()),
        };
        Err(NodeError::Unsupported {
            why: format!("{leaving} is not on this node any more"),
        })
    }
}

/// It stays while this lives.
struct Carrying<'a> {
    node: &'a Inner,
    what: &'a Portable,
}

impl<'a> Carrying<'a> {
    /// `None`: it is leaving.
    fn begin(node: &'a Inner, what: &'a Portable) -> Option<Self> {
        let mut table = node.lock();
        if table.leaving.contains(what) {
            return None;
        }
        *table.carried.entry(what.clone()).or_default() += 1;
        Some(Self { node, what })
    }
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        let mut table = self.node.lock();
        if let Some(times) = table.carried.get_mut(self.what) {
            *times -= 1;
            if *times == 0 {
                table.carried.remove(self.what);
            }
        }
    }
}

/// Nobody begins with it while this lives.
pub(crate) struct Leaving {
    pub(crate) node: Arc<Inner>,
    pub(crate) what: Portable,
}

impl Leaving {
    fn begin(node: &Arc<Inner>, layer: &LayerId) -> Result<Self, NodeError> {
        let mut table = node.lock();
        let name = layer.as_str();
        let what = Portable::Layer(layer.clone());
        let mut below = table.sandboxes.values().flat_map(|row| row.layers());
        if below.any(|one| one == name) || table.carried.contains_key(&what) {
            return Err(NodeError::InUse(layer.clone()));
        }
        if !table.leaving.insert(what.clone()) {
            // Whoever removes it is at it.
            return Err(NodeError::InUse(layer.clone()));
        }
        Ok(Self::noted(node, what))
    }

    /// Of what was noted in the table as leaving.
    pub(crate) fn noted(node: &Arc<Inner>, what: Portable) -> Self {
        let node = Arc::clone(node);
        Self { node, what }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.node.lock().leaving.remove(&self.what);
        self.node.left.notify_waiters();
    }
}
