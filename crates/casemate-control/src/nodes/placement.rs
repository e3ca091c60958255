//! Which node a sandbox is asked of.
//!
//! What is known of nodes is seconds old, and several API servers choose at once: all of them taking
//! the best one would fill it at one blow. So a few are drawn by lot, and the best of these is asked
//! first (the power of two choices: M. Mitzenmacher, 1996). What a node then says is the last word; a
//! full one costs a round trip, and the next is asked.

use std::collections::{BTreeMap, HashSet};

use casemate_types::Resources;

/// Drawn for each sandbox, some maybe twice. More know more, and crowd together more.
const DRAWN: usize = 4;
/// Nodes that one create asks at most.
pub(crate) const ASKED_MAX: usize = 3;
/// What a template that is there already is worth, in shares of a node: fetching it costs more than a
/// node that is somewhat fuller.
const AT_HAND: f64 = 0.25;
/// A node fuller than this gets no sandbox for its templates' sake.
const CROWDED: f64 = 0.85;
/// What a create that waits there weighs.
const WAITING: f64 = 0.05;
/// What its processors weigh beside its places: they are shared, and a moment's look.
const PROCESSORS: f64 = 0.25;

/// A node, as far as placement is concerned.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Takes new sandboxes, and speaks with us.
    pub open: bool,
    pub isolation: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    /// Layers that are there.
    pub layers: &'a HashSet<String>,
    /// Those that run or are being made, as it said last, and what was asked of it since.
    pub sandboxes: u32,
    pub sandboxes_max: u32,
    /// Sum of the memory limits, as [`Self::sandboxes`]; MiB.
    pub memory_mib: u64,
    /// What that may come to; 0: not known.
    pub memory_mib_max: u64,
    pub queue_length: u32,
    /// Of all its processors.
    pub cpu_percent: u32,
}

/// What a sandbox asks of its node.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub resources: Resources,
    pub layers: &'a [String],
    /// `None`: any.
    pub isolation: Option<&'a str>,
    /// All of them with exactly these values.
    pub labels: &'a BTreeMap<String, String>,
}

/// Nodes to ask, the first one first, by their places in `nodes`; empty where none could run it.
/// `lot` gives a number below its argument, which is not 0.
pub fn choose(
    nodes: &[Candidate<'_>],
    wanted: &Wanted<'_>,
    mut lot: impl FnMut(usize) -> usize,
) -> Vec<usize> {
    let may = |node: &Candidate<'_>| {
        let kind = wanted.isolation.is_none_or(|kind| kind == node.isolation);
        let has = |(name, value)| node.labels.get(name) == Some(value);
        node.open && kind && wanted.labels.iter().all(has)
    };
    let mut left: Vec<usize> = (0..nodes.len()).filter(|at| may(&nodes[*at])).collect();
    // Those that seem full come behind all others: what was heard of them may be over.
    let fits = |at: &usize| nodes[*at].fits(wanted);
    left.sort_by_key(|at| !fits(at));
    let fitting = left.iter().filter(|at| fits(at)).count();
    let mut chosen = Vec::new();
    while chosen.len() < ASKED_MAX && chosen.len() < left.len() {
        let from = chosen.len();
        let pool = match from < fitting {
            true => from..fitting,
            false => from..left.len(),
        };
        let drawn = (0..DRAWN).map(|_| pool.start + lot(pool.len()));
        let best = drawn.min_by(|a, b| {
            let weight = |at: &usize| nodes[left[*at]].weight(wanted);
            weight(a).total_cmp(&weight(b))
        });
        let Some(best) = best else { break };
        left.swap(from, best);
        chosen.push(left[from]);
    }
    chosen
}

impl Candidate<'_> {
    fn fits(&self, wanted: &Wanted<'_>) -> bool {
        let memory = self.memory_mib + u64::from(wanted.resources.memory_mib);
        self.sandboxes < self.sandboxes_max
            && (self.memory_mib_max == 0 || memory <= self.memory_mib_max)
    }

    /// How much speaks against it: 0 is an empty node, 1 a full one.
    fn weight(&self, wanted: &Wanted<'_>) -> f64 {
        let share = |used: u64, max: u64| match max {
            0 => 0.0,
            max => used as f64 / max as f64,
        };
        let memory = self.memory_mib + u64::from(wanted.resources.memory_mib);
        let filled = share(self.sandboxes.into(), self.sandboxes_max.into())
            .max(share(memory, self.memory_mib_max));
        let at_hand = filled < CROWDED && wanted.layers.iter().all(|l| self.layers.contains(l));
        let busy = f64::from(self.cpu_percent.min(100)) / 100.0 * PROCESSORS;
        let waiting = f64::from(self.queue_length) * WAITING;
        filled + busy + waiting - if at_hand { AT_HAND } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static EMPTY: BTreeMap<String, String> = BTreeMap::new();

    fn node<'a>(
        labels: &'a BTreeMap<String, String>,
        layers: &'a HashSet<String>,
    ) -> Candidate<'a> {
        Candidate {
            open: true,
            isolation: "namespaces",
            labels,
            layers,
            sandboxes: 0,
            sandboxes_max: 100,
            memory_mib: 0,
            memory_mib_max: 64 * 1024,
            queue_length: 0,
            cpu_percent: 0,
        }
    }

    fn wanted<'a>(labels: &'a BTreeMap<String, String>, layers: &'a [String]) -> Wanted<'a> {
        Wanted {
            resources: Resources::BASE,
            layers,
            isolation: None,
            labels,
        }
    }

    /// The same numbers each time.
    fn lots(mut seed: u64) -> impl FnMut(usize) -> usize {
        move |below| {
            // SplitMix64 (G. Steele et al., 2014).
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            usize::try_from(mixed >> 33).unwrap() % below
        }
    }

    #[test]
    fn only_nodes_that_are_open_and_of_the_kind_are_asked_each_once() {
        let none = HashSet::new();
        let gpu = BTreeMap::from([("gpu".to_owned(), "a100".to_owned())]);
        let closed = Candidate {
            open: false,
            ..node(&gpu, &none)
        };
        let other = Candidate {
            isolation: "firecracker",
            ..node(&gpu, &none)
        };
        let nodes = [closed, other, node(&EMPTY, &none), node(&gpu, &none)];
        for seed in 0..100 {
            let mut all = choose(&nodes, &wanted(&EMPTY, &[]), lots(seed));
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3]);
            let labelled = Wanted {
                isolation: Some("namespaces"),
                ..wanted(&gpu, &[])
            };
            assert_eq!(choose(&nodes, &labelled, lots(seed)), [3]);
        }
        let impossible = Wanted {
            isolation: Some("gvisor"),
            ..wanted(&EMPTY, &[])
        };
        assert!(choose(&nodes, &impossible, lots(0)).is_empty());
        assert!(choose(&[], &wanted(&EMPTY, &[]), lots(0)).is_empty());
    }

    #[test]
    fn full_nodes_are_asked_last_and_those_with_the_template_first() {
        let (none, some) = (HashSet::new(), HashSet::from(["t-1".to_owned()]));
        let full = Candidate {
            sandboxes: 100,
            ..node(&EMPTY, &some)
        };
        let tight = Candidate {
            memory_mib: 64 * 1024 - 100,
            ..node(&EMPTY, &some)
        };
        let free = node(&EMPTY, &none);
        let at_hand = Candidate {
            sandboxes: 10,
            ..node(&EMPTY, &some)
        };
        let nodes = [full, free.clone(), tight, at_hand];
        let layers = ["t-1".to_owned()];
        let mut firsts = [0; 4];
        for seed in 0..400 {
            let order = choose(&nodes, &wanted(&EMPTY, &layers), lots(seed));
            firsts[order[0]] += 1;
            let mut both = order[..2].to_vec();
            both.sort_unstable();
            assert_eq!(both, [1, 3], "what fits comes first: {order:?}");
        }
        // Four are drawn of two: the better one is not among them once in sixteen times.
        assert!(firsts[3] > 330, "{firsts:?}");
        // A crowded node gets nothing for its templates' sake.
        let crowded = Candidate {
            sandboxes: 90,
            ..node(&EMPTY, &some)
        };
        let nodes = [crowded, free];
        let first = |seed| choose(&nodes, &wanted(&EMPTY, &layers), lots(seed))[0];
        assert!((0..400).filter(|seed| first(*seed) == 1).count() > 330);
    }
}
