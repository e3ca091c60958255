//! Which node a sandbox is asked of.
//!
//! What is known of nodes is seconds old, and several API servers choose at once: all of them taking
//! the best one would fill it at one blow. So a few are drawn by lot, and the best of these is asked
//! first (the power of two choices: M. Mitzenmacher, 1996). What a node then says is the last word; a
//! full one costs a round trip, and the next is asked.

use std::collections::{BTreeMap, HashSet};

use casemate_types::Resources;

/// Drawn for each sandbox. More know more, and crowd together more.
const DRAWN: usize = 4;
/// Drawn of the nodes that have the template, beside those.
const DRAWN_AT_HAND: usize = 2;
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

/// What was seen of a node just now.
pub trait Seen {
    fn candidate(&self) -> Candidate<'_>;
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

/// One that could run it.
struct Drawn {
    at: usize,
    weight: f64,
    /// One of those among which the first to ask is found.
    first: bool,
}

/// Of `count` nodes those to ask, the first one first; empty where none could run it. `look` looks at one
/// of them, which is not done to more than it takes to find a few, and `lot` gives a number below its
/// argument, which is not 0.
pub fn choose<S: Seen>(
    count: usize,
    look: impl Fn(usize) -> S,
    wanted: &Wanted<'_>,
    mut lot: impl FnMut(usize) -> usize,
) -> Vec<usize> {
    // Of a few nodes not all, or else all servers would choose the same one.
    let first_max = DRAWN.min(count / 2 + 1);
    let drawn_max = first_max.max(ASKED_MAX);
    let (mut drawn, mut seem_full): (Vec<Drawn>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut at_hand = 0;
    for at in walk(count, &mut lot) {
        let seen = look(at);
        let node = seen.candidate();
        if !node.may(wanted) {
            continue;
        }
        if !node.fits(wanted) {
            // They come behind all others: what was heard of them may be over.
            if seem_full.len() < ASKED_MAX {
                seem_full.push(at);
            }
            continue;
        }
        let (weight, has) = node.weight(wanted);
        let (first, wanted_more) = (drawn.len() < first_max, drawn.len() < drawn_max);
        let of_those_that_have = has && at_hand < DRAWN_AT_HAND;
        at_hand += usize::from(has);
        if wanted_more || of_those_that_have {
            let first = first || of_those_that_have;
            drawn.push(Drawn { at, weight, first });
        }
        if drawn.len() >= drawn_max && at_hand >= DRAWN_AT_HAND {
            break;
        }
    }
    drawn.sort_by(|a, b| a.weight.total_cmp(&b.weight));
    if let Some(best) = drawn.iter().position(|one| one.first) {
        drawn[..=best].rotate_right(1);
    }
    let mut chosen: Vec<usize> = drawn.into_iter().map(|one| one.at).collect();
    chosen.extend(seem_full);
    chosen.truncate(ASKED_MAX);
    chosen
}

/// All numbers below `count`, each once, in an order by lot: from somewhere on in steps of a length that
/// has no divisor in common with it.
fn walk<L: FnMut(usize) -> usize>(
    count: usize,
    lot: &mut L,
) -> impl Iterator<Item = usize> + use<L> {
    let mut at = if count == 0 { 0 } else { lot(count) };
    let mut step = 1;
    if count > 2 {
        step = 1 + lot(count - 1);
        while divisor(count, step) != 1 {
            step = 1 + lot(count - 1);
        }
    }
    (0..count).map(move |_| {
        let here = at;
        at = (at + step) % count;
        here
    })
}

/// The greatest that both have.
fn divisor(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Candidate<'_> {
    fn may(&self, wanted: &Wanted<'_>) -> bool {
        let kind = wanted.isolation.is_none_or(|kind| kind == self.isolation);
        let has = |(name, value)| self.labels.get(name) == Some(value);
        self.open && kind && wanted.labels.iter().all(has)
    }

    fn fits(&self, wanted: &Wanted<'_>) -> bool {
        let memory = self.memory_mib + u64::from(wanted.resources.memory_mib);
        self.sandboxes < self.sandboxes_max
            && (self.memory_mib_max == 0 || memory <= self.memory_mib_max)
    }

    /// How much speaks against it: 0 is an empty node, 1 a full one. And whether its templates speak for
    /// it.
    fn weight(&self, wanted: &Wanted<'_>) -> (f64, bool) {
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
        let weight = filled + busy + waiting - if at_hand { AT_HAND } else { 0.0 };
        (weight, at_hand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Seen for &Candidate<'_> {
        fn candidate(&self) -> Candidate<'_> {
            (*self).clone()
        }
    }

    fn choose(
        nodes: &[Candidate<'_>],
        wanted: &Wanted<'_>,
        lot: impl FnMut(usize) -> usize,
    ) -> Vec<usize> {
        super::choose(nodes.len(), |at| &nodes[at], wanted, lot)
    }

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
        assert_eq!(firsts[3], 400, "{firsts:?}");
        // A crowded node gets nothing for its templates' sake.
        let crowded = Candidate {
            sandboxes: 90,
            ..node(&EMPTY, &some)
        };
        let nodes = [crowded, free];
        let first = |seed| choose(&nodes, &wanted(&EMPTY, &layers), lots(seed))[0];
        assert!((0..400).all(|seed| first(seed) == 1));
    }

    #[test]
    fn a_walk_comes_everywhere_once_and_begins_everywhere() {
        for count in [0, 1, 2, 3, 4, 6, 7, 30, 1000] {
            let mut begun = HashSet::new();
            for seed in 0..20 {
                let order: Vec<usize> = walk(count, &mut lots(seed)).collect();
                begun.extend(order.first().copied());
                let mut all = order;
                all.sort_unstable();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
            assert!(begun.len() >= count.min(3), "{count}: {begun:?}");
        }
    }

    /// Of a thousand, one that has the template is found however few they are.
    #[test]
    fn a_template_that_few_have_is_found_and_a_choice_looks_at_few_otherwise() {
        let (none, some) = (HashSet::new(), HashSet::from(["t-1".to_owned()]));
        let mut nodes = vec![node(&EMPTY, &none); 1000];
        let looked = std::cell::Cell::new(0);
        let chosen = |nodes: &[Candidate<'_>], layers: &[String], seed| {
            let look = |at: usize| {
                looked.set(looked.get() + 1);
                &nodes[at]
            };
            super::choose(nodes.len(), look, &wanted(&EMPTY, layers), lots(seed))
        };
        for seed in 0..100 {
            assert_eq!(chosen(&nodes, &[], seed).len(), ASKED_MAX);
        }
        assert_eq!(looked.take(), 100 * DRAWN);
        nodes[17].layers = &some;
        nodes[717].layers = &some;
        let layers = ["t-1".to_owned()];
        for seed in 0..100 {
            let first = chosen(&nodes, &layers, seed)[0];
            assert!(first == 17 || first == 717, "{first}");
        }
    }

    #[test]
    fn servers_that_see_the_same_do_not_all_choose_the_same() {
        let none = HashSet::new();
        let mut nodes = vec![node(&EMPTY, &none); 3];
        nodes[0].sandboxes = 10;
        nodes[1].sandboxes = 20;
        nodes[2].sandboxes = 30;
        let mut firsts = [0; 3];
        for seed in 0..300 {
            firsts[choose(&nodes, &wanted(&EMPTY, &[]), lots(seed))[0]] += 1;
        }
        assert!(firsts[1] > 50 && firsts[0] > firsts[1], "{firsts:?}");
        assert_eq!(firsts[2], 0, "the fullest is never the best of two");
    }
}
