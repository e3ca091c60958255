//! Which nodes are asked: what placement sees of them, and the lots that it draws.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use casemate_rpc::NodeError;
use casemate_store::Build;
use casemate_types::TeamId;

use super::placement::{self, Candidate, Seen, Wanted};
use super::{Node, Nodes, Place};
use crate::{Control, artifacts};

/// What placement sees of a node.
struct Look {
    open: bool,
    layers: Arc<HashSet<String>>,
    place: Place,
    sandboxes: u32,
    sandboxes_max: u32,
    memory_mib: u64,
    memory_mib_max: u64,
    queue_length: u32,
    cpu_percent: u32,
}

impl Seen for Look {
    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            open: self.open,
            isolation: &self.place.isolation,
            labels: &self.place.labels,
            layers: &self.layers,
            sandboxes: self.sandboxes,
            sandboxes_max: self.sandboxes_max,
            memory_mib: self.memory_mib,
            memory_mib_max: self.memory_mib_max,
            queue_length: self.queue_length,
            cpu_percent: self.cpu_percent,
        }
    }
}

impl Node {
    fn look(&self) -> Look {
        let place = self.place();
        let heard = self.heard();
        let info = heard.info.as_ref();
        let starting = u32::try_from(self.starting.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        const MIB: u64 = 1 << 20;
        Look {
            open: place.is_open
                && heard.connection.is_some()
                && info.is_some_and(|info| info.ready),
            layers: Arc::clone(&heard.layers),
            place,
            sandboxes: info
                .map_or(0, |info| info.sandboxes)
                .saturating_add(starting)
                .saturating_add(heard.since.sandboxes),
            sandboxes_max: info.map_or(0, |info| info.sandboxes_max),
            memory_mib: info.map_or(0, |info| info.memory_promised_bytes / MIB)
                + heard.since.memory_mib,
            memory_mib_max: info.map_or(0, |info| info.memory_promised_max_bytes / MIB),
            queue_length: info.map_or(0, |info| info.queue_length),
            cpu_percent: info.map_or(0, |info| info.cpu_percent),
        }
    }
}

impl Nodes {
    fn is_one_at_most(&self) -> bool {
        self.row
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
            < 2
    }

    /// Nodes to ask for a sandbox, the first one first; `lot` gives a number below its argument.
    pub(super) fn choose(
        &self,
        wanted: &Wanted<'_>,
        lot: impl FnMut(usize) -> usize,
    ) -> Vec<Arc<Node>> {
        let row = Arc::clone(&*self.row.read().unwrap_or_else(PoisonError::into_inner));
        let order = placement::choose(row.len(), |at| row[at].look(), wanted, lot);
        order.into_iter().map(|at| Arc::clone(&row[at])).collect()
    }
}

impl Control {
    /// Nodes to ask for a sandbox of a build, the first one first.
    pub(crate) fn candidates(&self, build: &Build) -> Vec<Arc<Node>> {
        // On one machine there is nothing to choose.
        if self.nodes.is_one_at_most() {
            let mut nodes = self.nodes.connected();
            nodes.retain(|node| node.is_open());
            return nodes;
        }
        let carried = artifacts::carried_names(build);
        let labels = BTreeMap::new();
        let wanted = Wanted {
            resources: build.resources,
            layers: &carried,
            isolation: None,
            labels: &labels,
        };
        self.nodes.choose(&wanted, lot)
    }

    /// Where a team's builds are made: always at the same node while it is there, since what is kept
    /// of their steps is there.
    pub(crate) fn node_for_builds(&self, team: &TeamId) -> Result<Arc<Node>, NodeError> {
        let weight = |node: &Arc<Node>| {
            let mut hasher = DefaultHasher::new();
            (team.as_str(), &node.name).hash(&mut hasher);
            hasher.finish()
        };
        // The highest of a hash of both (rendezvous hashing): one that comes or goes moves only its own.
        let open = self
            .nodes
            .connected()
            .into_iter()
            .filter(|node| node.is_open());
        let chosen = open.max_by_key(weight);
        chosen.ok_or(NodeError::Unreachable)
    }
}

/// A number below this one, which is not 0.
fn lot(below: usize) -> usize {
    // The system's randomness is a call of the kernel, and this needs none that nobody can guess.
    thread_local!(static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0)));
    STATE.with(|state| {
        // xorshift64* (S. Vigna, 2016).
        let mut x = state.get() | 1;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        let number = x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(number).unwrap_or(0) % below
    })
}
