//! Copies of snapshots made ahead, of those that sandboxes began with lately: one of each.
//!
//! Making one waits for the file system to write its state to disk, which takes as long as the disk
//! does. Whoever begins many sandboxes with one snapshot, as with a template, waits for it once.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use casemate_runtime::DiskLimit;
use casemate_types::{SnapshotId, chain};
use tokio::sync::mpsc;

use super::stock::{LAYER_BYTES, between_creates};
use super::{Shared, blocking, lock};
use crate::pool::Layer;

/// Those that nobody asked for the longest are given up. An unused one takes some 32 KiB.
const COPIES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Copies {
    state: Mutex<State>,
    wanted: mpsc::UnboundedSender<SnapshotId>,
    /// Taken by the task that makes them.
    orders: Mutex<Option<mpsc::UnboundedReceiver<SnapshotId>>>,
}

#[derive(Debug, Default)]
struct State {
    /// The latest last; under the limit of layers in stock.
    ready: VecDeque<(SnapshotId, Layer)>,
    /// Of which one is being made, until that is removed: another may have its name next.
    making: Option<SnapshotId>,
}

impl Copies {
    pub(super) fn new() -> Self {
        let (wanted, orders) = mpsc::unbounded_channel();
        Self {
            state: Mutex::default(),
            wanted,
            orders: Mutex::new(Some(orders)),
        }
    }

    /// The one that is ready, if any.
    fn take(&self, snapshot: &SnapshotId) -> Option<Layer> {
        lock(&self.state).take(snapshot)
    }

    /// Whether one is to be made; [`Copies::put`] follows then.
    fn begin(&self, snapshot: &SnapshotId) -> bool {
        let mut state = lock(&self.state);
        let is_ready = state.ready.iter().any(|(id, _)| id == snapshot);
        state.making = (!is_ready).then(|| snapshot.clone());
        !is_ready
    }

    /// Answers with one that is not needed: this one or the oldest.
    fn put(&self, snapshot: SnapshotId, layer: Layer) -> Option<Layer> {
        let mut state = lock(&self.state);
        if state.making.take().as_ref() != Some(&snapshot) {
            return Some(layer);
        }
        state.ready.push_back((snapshot, layer));
        let is_over = state.ready.len() > COPIES_MAX;
        let oldest = is_over.then(|| state.ready.pop_front()).flatten();
        oldest.map(|(_, layer)| layer)
    }

    /// Answers with what was ready of it; what is being made will not be.
    fn forget(&self, snapshot: &SnapshotId) -> Option<Layer> {
        let mut state = lock(&self.state);
        state.making.take_if(|making| making == snapshot);
        state.take(snapshot)
    }
}

impl State {
    fn take(&mut self, snapshot: &SnapshotId) -> Option<Layer> {
        let at = self.ready.iter().position(|(id, _)| id == snapshot)?;
        self.ready.remove(at).map(|(_, layer)| layer)
    }
}

/// A layer that holds what the snapshot does, under the limit of layers in stock. `NotFound`: there
/// is no such snapshot. Blocks.
pub(super) fn begin_with(shared: &Shared, snapshot: &SnapshotId) -> io::Result<Layer> {
    if !shared.pool.is_kept(snapshot) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let layer = match shared.copies.take(snapshot) {
        Some(layer) => layer,
        None => shared.pool.begin_with(snapshot, LAYER_BYTES)?,
    };
    // What a pause kept goes right after; and a copy that shares nothing costs all it holds.
    let is_begun_with_again = !snapshot.is_of_pause() && !snapshot.is_of_build();
    if is_begun_with_again && shared.pool.disk_limit() == DiskLimit::Enforced {
        // Closed only when the runtime itself is gone.
        let _ = shared.copies.wanted.send(snapshot.clone());
    }
    Ok(layer)
}

/// Removes a snapshot, with what was made ahead of it. Blocks.
pub(super) fn forget(shared: &Shared, snapshot: &SnapshotId) -> io::Result<()> {
    let forgotten = shared.pool.forget(snapshot);
    if let Some(layer) = shared.copies.forget(snapshot) {
        shared.pool.discard(&layer);
    }
    forgotten
}

/// Makes what is wanted, between creates.
pub(super) async fn fill(shared: Arc<Shared>) {
    let Some(mut orders) = lock(&shared.copies.orders).take() else {
        return;
    };
    while let Some(snapshot) = orders.recv().await {
        between_creates(&shared, || false).await;
        if !shared.copies.begin(&snapshot) {
            continue;
        }
        let filler = Arc::clone(&shared);
        let made = blocking("copy a snapshot ahead", move || -> io::Result<()> {
            let layer = filler.pool.begin_with(&snapshot, LAYER_BYTES)?;
            if let Some(unneeded) = filler.copies.put(snapshot, layer) {
                filler.pool.discard(&unneeded);
            }
            Ok(())
        });
        if let Err(error) = made.await {
            // Removed meanwhile, or no room: whoever begins with it hears of that.
            tracing::debug!(cause = chain(&error), "a snapshot is not copied ahead");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str) -> Layer {
        Layer::parse(name).unwrap()
    }

    #[test]
    fn one_of_each_is_ready_and_the_oldest_goes() {
        let copies = Copies::new();
        let ids: Vec<_> = (0..=COPIES_MAX).map(|_| SnapshotId::random()).collect();
        for (number, id) in ids.iter().enumerate() {
            assert!(copies.begin(id));
            let over = copies.put(id.clone(), layer(&format!("{number:x}")));
            assert_eq!(over.is_some(), number == COPIES_MAX);
            assert!(!copies.begin(id));
        }
        assert_eq!(copies.take(&ids[0]), None);
        assert_eq!(copies.take(&ids[1]), Some(layer("1")));
        assert_eq!(copies.take(&ids[1]), None);
    }

    #[test]
    fn what_is_made_of_a_removed_one_is_not_another_s_of_its_name() {
        let (copies, id) = (Copies::new(), SnapshotId::random());
        assert!(copies.begin(&id));
        assert_eq!(copies.forget(&id), None);
        assert_eq!(copies.put(id.clone(), layer("a")), Some(layer("a")));
        assert!(copies.begin(&id));
        assert_eq!(copies.put(id.clone(), layer("b")), None);
        assert_eq!(copies.forget(&id), Some(layer("b")));
        assert_eq!(copies.take(&id), None);
    }
}
