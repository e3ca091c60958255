//! What builds that are under way rest on, and no row may name yet: whoever removes what nobody wants
//! leaves these.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_store::{Build, CachedLayer};
use casemate_types::{LayerId, SandboxId, SnapshotId};

/// Of all builds of a process. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    files: HashMap<SnapshotId, usize>,
    layers: HashMap<LayerId, usize>,
    sandboxes: HashMap<SandboxId, usize>,
}

impl Held {
    pub fn has_files(&self, files: &SnapshotId) -> bool {
        self.lock().files.contains_key(files)
    }

    pub fn has_layer(&self, layer: &LayerId) -> bool {
        self.lock().layers.contains_key(layer)
    }

    /// Whether it is the sandbox of a build that is under way.
    pub fn has_sandbox(&self, sandbox: &SandboxId) -> bool {
        self.lock().sandboxes.contains_key(sandbox)
    }

    /// All that is held now.
    pub fn files(&self) -> Vec<SnapshotId> {
        self.lock().files.keys().cloned().collect()
    }

    /// All that is held now.
    pub fn layers(&self) -> Vec<LayerId> {
        self.lock().layers.keys().cloned().collect()
    }

    /// Holds what sandboxes of a template's build begin with. Whoever then finds the build still there
    /// may rest on it, whatever becomes of it meanwhile.
    pub fn hold_build(&self, build: &Build) -> Hold {
        let mut hold = self.hold();
        build.files.iter().for_each(|files| hold.files(files));
        build.layers.iter().for_each(|layer| hold.layer(layer));
        hold
    }

    pub(super) fn hold(&self) -> Hold {
        Hold {
            of: self.clone(),
            files: Vec::new(),
            layers: Vec::new(),
            sandboxes: Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// What one build holds, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    of: Held,
    files: Vec<SnapshotId>,
    layers: Vec<LayerId>,
    sandboxes: Vec<SandboxId>,
}

impl Hold {
    pub(super) fn files(&mut self, files: &SnapshotId) {
        add(&mut self.of.lock().files, files);
        self.files.push(files.clone());
    }

    pub(super) fn sandbox(&mut self, sandbox: &SandboxId) {
        add(&mut self.of.lock().sandboxes, sandbox);
        self.sandboxes.push(sandbox.clone());
    }

    /// All that a state is made of.
    pub(super) fn state(&mut self, state: &CachedLayer) {
        state.files.iter().for_each(|files| self.files(files));
        state.layers.iter().for_each(|layer| self.layer(layer));
    }

    /// Others than sealed ones are never removed.
    pub(super) fn layer(&mut self, name: &str) {
        if let Ok(layer) = LayerId::parse(name) {
            add(&mut self.of.lock().layers, &layer);
            self.layers.push(layer);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut counts = self.of.lock();
        for files in &self.files {
            take(&mut counts.files, files);
        }
        for layer in &self.layers {
            take(&mut counts.layers, layer);
        }
        for sandbox in &self.sandboxes {
            take(&mut counts.sandboxes, sandbox);
        }
    }
}

fn add<T: Clone + Eq + Hash>(counts: &mut HashMap<T, usize>, one: &T) {
    *counts.entry(one.clone()).or_default() += 1;
}

fn take<T: Eq + Hash>(counts: &mut HashMap<T, usize>, one: &T) {
    if let Some(count) = counts.get_mut(one) {
        *count -= 1;
        if *count == 0 {
            counts.remove(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_hold_is_held_until_both_let_go() {
        let held = Held::default();
        let (files, layer) = (SnapshotId::random(), LayerId::random());
        let mut first = held.hold();
        let mut second = held.hold();
        for hold in [&mut first, &mut second] {
            hold.files(&files);
            hold.layer(layer.as_str());
            hold.layer("b-base");
        }
        drop(first);
        assert_eq!(
            (held.files(), held.layers()),
            (vec![files.clone()], vec![layer.clone()])
        );
        assert!(held.has_files(&files) && held.has_layer(&layer));
        drop(second);
        assert!(!held.has_files(&files) && !held.has_layer(&layer));
    }
}
