//! Placement with many nodes, in a time of its own: the nodes and the clock are made up, what API servers
//! know of nodes and how they choose is the real thing ([`super::Nodes`], [`super::placement`]).
//!
//! Servers hear of nodes every [`HEARTBEAT`], each node at its own moment, and of a node that went away
//! only some seconds later. A node has the last word, as real ones do: it is full, or away, or refuses for
//! a reason of its own, and the next one is asked. Fetching a template that is not there takes seconds.

mod world;

use std::time::{Duration, Instant};

use world::World;

/// How old a server's figures get.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Plan {
    pub nodes: usize,
    /// API servers, each of which gets its share of the creates, by lot.
    pub servers: usize,
    pub creates: u64,
    /// How full the nodes would be on average, by memory, were nobody refused. A fifth of the time, in the
    /// middle, a quarter more is asked.
    pub filled: f64,
    /// How long a sandbox lives on average.
    pub life: Duration,
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub creates: u64,
    /// Creates whose first node was full …
    pub first_full: u64,
    /// … or away, or refused for a reason of its own.
    pub first_failed: u64,
    /// Creates that no node took.
    pub nowhere: u64,
    /// … while half of the nodes had room for one more of the largest.
    pub nowhere_with_room: u64,
    /// Creates that had to wait for their template.
    pub fetched: u64,
    /// Moments at which a node held more than it may.
    pub over: u64,
    /// The loads of nodes at one moment, in shares of what each may hold; one entry every few seconds.
    pub loads: Vec<Loads>,
    /// How long each choice took.
    pub took: Vec<Duration>,
}

/// Loads of the nodes that are there, in shares of what each may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loads {
    pub mean: f64,
    /// Of 99 in 100 nodes it is not more.
    pub p99: f64,
    pub max: f64,
    pub deviation: f64,
}

/// Runs to the end.
///
/// # Panics
/// Outside of a Tokio runtime.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    World::new(plan).run()
}

/// A choice, and how long it took.
fn timed<T>(choice: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let chosen = choice();
    (chosen, begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The short form of `casemate bench --only placement`.
    #[tokio::test]
    async fn nodes_fill_evenly_and_none_holds_more_than_it_may() {
        let outcome = run(&Plan {
            nodes: 200,
            servers: 3,
            creates: 60_000,
            filled: 0.7,
            life: Duration::from_secs(60),
            seed: 7,
        });
        assert_eq!(outcome.creates, 60_000);
        assert_eq!(outcome.over, 0);
        let settled = &outcome.loads[outcome.loads.len() / 3..];
        assert!(settled.len() > 10, "{}", settled.len());
        let mean =
            |of: fn(&Loads) -> f64| settled.iter().map(of).sum::<f64>() / settled.len() as f64;
        let (p99, max) = (mean(|l| l.p99 / l.mean), mean(|l| l.max / l.mean));
        assert!(p99 < 1.35 && max < 1.6, "p99 {p99} max {max}");
        let share = |count: u64| count as f64 / outcome.creates as f64;
        assert!(share(outcome.first_full) < 0.01, "{}", outcome.first_full);
        assert_eq!(outcome.nowhere_with_room, 0);
        assert!(share(outcome.fetched) < 0.1, "{}", outcome.fetched);
    }
}
