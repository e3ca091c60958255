//! Kept files of sandboxes without any: a text each.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use casemate_types::{LayerId, Portable, SandboxId, SnapshotId};

use super::{FakeRuntime, State};
use crate::{CarryError, Measured, RuntimeRecord, SnapshotError, Snapshots, Taken};

#[async_trait]
impl Snapshots for FakeRuntime {
    async fn take(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<Taken, SnapshotError> {
        let mut state = self.lock();
        if !state.running.contains_key(sandbox) {
            return Err(SnapshotError::NotFound(sandbox.clone()));
        }
        state.keep(sandbox, snapshot)?;
        let files = state.snapshots.get(snapshot).map_or(0, String::len);
        Ok(Taken {
            frozen: Duration::ZERO,
            bytes: u64::try_from(files).unwrap_or(u64::MAX),
            is_shared: true,
        })
    }

    async fn suspend(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<(), SnapshotError> {
        let mut state = self.lock();
        if !state.files.contains_key(sandbox) {
            return Err(SnapshotError::NotFound(sandbox.clone()));
        }
        state.keep(sandbox, snapshot)?;
        state.running.remove(sandbox);
        state.frozen.remove(sandbox);
        state.files.remove(sandbox);
        Ok(())
    }

    async fn salvage(
        &self,
        record: &RuntimeRecord,
        snapshot: &SnapshotId,
    ) -> Result<bool, SnapshotError> {
        let mut state = self.lock();
        if state.snapshots.contains_key(snapshot) {
            return Ok(true);
        }
        let Some(files) = state.files.remove(&record.sandbox) else {
            return Ok(false);
        };
        state.snapshots.insert(snapshot.clone(), files);
        Ok(true)
    }

    async fn has(&self, snapshot: &SnapshotId) -> Result<bool, SnapshotError> {
        Ok(self.lock().snapshots.contains_key(snapshot))
    }

    async fn remove(&self, snapshot: &SnapshotId) -> Result<(), SnapshotError> {
        self.lock().snapshots.remove(snapshot);
        Ok(())
    }

    async fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> Result<u64, SnapshotError> {
        let bytes = |files: &String| u64::try_from(files.len()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        if let Some(files) = state.layers.get(layer) {
            return Ok(bytes(files));
        }
        let missing = || SnapshotError::NoSnapshot(snapshot.clone());
        let files = state.snapshots.get(snapshot).cloned().ok_or_else(missing)?;
        if state.has_no_room {
            return Err(SnapshotError::Capacity(snapshot.clone()));
        }
        let taken = bytes(&files);
        state.layers.insert(layer.clone(), files);
        Ok(taken)
    }

    async fn remove_layer(&self, layer: &LayerId) -> Result<(), SnapshotError> {
        self.removal_waits.notify_one();
        drop(self.hold_removals().await);
        self.lock().layers.remove(layer);
        Ok(())
    }

    async fn layers(&self) -> Result<BTreeSet<LayerId>, SnapshotError> {
        Ok(self.lock().layers.keys().cloned().collect())
    }

    async fn list(&self) -> Result<BTreeMap<SnapshotId, Option<u64>>, SnapshotError> {
        let bytes = |files: &String| u64::try_from(files.len()).ok();
        let state = self.lock();
        let kept = state.snapshots.iter();
        Ok(kept.map(|(id, files)| (id.clone(), bytes(files))).collect())
    }

    async fn measure(&self, what: &Portable) -> Result<Option<Measured>, SnapshotError> {
        let state = self.lock();
        let used_at = state.used.get(what);
        Ok(state.carried(what).map(|files| Measured {
            bytes: u64::try_from(files.len()).unwrap_or(u64::MAX),
            unused_for: used_at.map_or(Duration::MAX, Instant::elapsed),
        }))
    }

    async fn note_use(&self, whats: &[Portable]) {
        let used = whats.iter().map(|what| (what.clone(), Instant::now()));
        self.lock().used.extend(used);
    }

    async fn pack(&self, what: &Portable, mut to: UnixStream) -> Result<(), CarryError> {
        let files = self.lock().carried(what).cloned();
        let files = files.ok_or_else(|| CarryError::NotHere(what.clone()))?;
        let broken = |source| CarryError::Stream {
            what: what.clone(),
            source,
        };
        let written = tokio::task::spawn_blocking(move || {
            to.set_nonblocking(false)?;
            to.write_all(format!("fake tree:{files}.").as_bytes())
        });
        written.await.expect("it does not panic").map_err(broken)
    }

    async fn unpack(&self, what: &Portable, mut from: UnixStream) -> Result<u64, CarryError> {
        let bytes = |files: &String| u64::try_from(files.len()).unwrap_or(u64::MAX);
        if let Some(files) = self.lock().carried(what) {
            return Ok(bytes(files));
        }
        let read = tokio::task::spawn_blocking(move || {
            from.set_nonblocking(false)?;
            let mut text = String::new();
            from.read_to_string(&mut text)?;
            let files = text.strip_prefix("fake tree:");
            let files = files.and_then(|files| files.strip_suffix('.'));
            let wrong = || std::io::ErrorKind::InvalidData.into();
            files.map(str::to_owned).ok_or_else(wrong)
        });
        let read = read.await.expect("it does not panic");
        let files = read.map_err(|source| CarryError::Stream {
            what: what.clone(),
            source,
        })?;
        let mut state = self.lock();
        if state.has_no_room {
            return Err(CarryError::Capacity(what.clone()));
        }
        let taken = bytes(&files);
        state.unpacked += 1;
        match what {
            Portable::Snapshot(id) => state.snapshots.insert(id.clone(), files),
            Portable::Layer(id) => state.layers.insert(id.clone(), files),
        };
        Ok(taken)
    }
}

impl State {
    fn carried(&self, what: &Portable) -> Option<&String> {
        match what {
            Portable::Snapshot(id) => self.snapshots.get(id),
            Portable::Layer(id) => self.layers.get(id),
        }
    }

    fn keep(&mut self, sandbox: &SandboxId, snapshot: &SnapshotId) -> Result<(), SnapshotError> {
        if std::mem::take(&mut self.fail_next_freeze) {
            return Err(SnapshotError::Step {
                step: "hold the sandbox still",
                source: "told to fail".into(),
            });
        }
        if self.snapshots.contains_key(snapshot) {
            return Err(SnapshotError::Exists(snapshot.clone()));
        }
        if self.has_no_room {
            return Err(SnapshotError::Capacity(snapshot.clone()));
        }
        let files = self.files.get(sandbox).cloned().unwrap_or_default();
        self.snapshots.insert(snapshot.clone(), files);
        Ok(())
    }
}
