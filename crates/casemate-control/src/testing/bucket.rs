//! A bucket of names alone, and the carriers of fake nodes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use casemate_rpc::carrier::{Carrier, CarrierError, FetchRequest, StoreRequest, Stored};
use casemate_types::Portable;

use super::FakeNode;

/// Clones are the same bucket.
#[derive(Clone, Default)]
pub struct FakeBucket(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// By reference: what lies there, and in whose scope.
    artifacts: Mutex<BTreeMap<String, (Portable, String)>>,
    fetches: AtomicUsize,
    is_away: AtomicBool,
}

impl FakeBucket {
    /// Carries between this bucket and a node.
    pub fn carrier(&self, node: &FakeNode) -> Arc<dyn Carrier> {
        Arc::new(FakeCarrier {
            bucket: self.clone(),
            node: node.clone(),
        })
    }

    /// What lies there, once for each time that it was stored.
    pub fn stored(&self) -> Vec<Portable> {
        let artifacts = self.lock();
        artifacts.values().map(|(what, _)| what.clone()).collect()
    }

    /// How often something came to a node.
    pub fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::SeqCst)
    }

    /// From now on nobody reaches it, or all do again.
    pub fn is_away(&self, is_away: bool) {
        self.0.is_away.store(is_away, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Portable, String)>> {
        self.0
            .artifacts
            .lock()
            .expect("no holder of this lock panics")
    }

    fn reached(&self, what: &Portable) -> Result<(), CarrierError> {
        match self.0.is_away.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(CarrierError::Unavailable {
                what: what.clone(),
                why: "it is away".into(),
            }),
        }
    }
}

struct FakeCarrier {
    bucket: FakeBucket,
    node: FakeNode,
}

#[async_trait]
impl Carrier for FakeCarrier {
    async fn store(&self, request: StoreRequest) -> Result<Stored, CarrierError> {
        self.bucket.reached(&request.what)?;
        let state = self.node.lock();
        let is_there = match &request.what {
            Portable::Snapshot(files) => state.snapshots.contains(files),
            Portable::Layer(layer) => state.layers.contains(layer),
        };
        if !is_there {
            let why = "the node has it not".into();
            let what = request.what;
            return Err(CarrierError::NotThere { what, why });
        }
        let mut artifacts = self.bucket.lock();
        let artifact = format!("{:064x}-7", artifacts.len());
        artifacts.insert(artifact.clone(), (request.what, request.scope));
        Ok(Stored {
            artifact,
            bytes: 7,
            bytes_sent: 7,
        })
    }

    async fn fetch(&self, request: FetchRequest) -> Result<u64, CarrierError> {
        self.bucket.reached(&request.what)?;
        let found = self.bucket.lock().get(&request.artifact).cloned();
        if found != Some((request.what.clone(), request.scope)) {
            let why = "the bucket has it not".into();
            let what = request.what;
            return Err(CarrierError::NotThere { what, why });
        }
        self.bucket.0.fetches.fetch_add(1, Ordering::SeqCst);
        let mut state = self.node.lock();
        // As every node knows of what comes from there.
        state.in_bucket.insert(request.what.clone());
        match request.what {
            Portable::Snapshot(files) => state.snapshots.insert(files),
            Portable::Layer(layer) => state.layers.insert(layer),
        };
        Ok(7)
    }
}
