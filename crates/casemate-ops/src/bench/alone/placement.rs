//! Which nodes creates go to, and how long a choice takes.

use std::time::Duration;

use casemate_control::nodes::simulation::{self, Loads, Plan};

use super::{Alone, Figures, Notes};
use crate::bench::error::BenchError;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

const SEED: u64 = 1;
const SERVERS: usize = 3;
/// Short, so that figures that are seconds old are wrong by much.
const LIFE: Duration = Duration::from_secs(60);
const FILLED: f64 = 0.7;

pub(super) async fn measure(
    options: &Alone,
    figures: &mut Figures,
    notes: &mut Notes,
) -> Result<(), BenchError> {
    let plan = Plan {
        nodes: options.nodes,
        servers: SERVERS,
        creates: options.creates,
        filled: FILLED,
        life: LIFE,
        seed: SEED,
    };
    let simulated = tokio::task::spawn_blocking(move || simulation::run(&plan));
    let outcome = simulated.await.map_err(|_| BenchError::Simulation)?;
    let mut took = Samples::default();
    outcome
        .took
        .iter()
        .for_each(|one| took.push(one.as_secs_f64() * 1e6));
    let nodes = options.nodes;
    figures.push(Figure::short_time(&format!("choice among {nodes} nodes"), &took).at_most(1000.0));
    // Until they are as full as they will be.
    let settled = &outcome.loads[outcome.loads.len() / 3..];
    let of = |share: fn(&Loads) -> f64| {
        let mut samples = Samples::default();
        settled
            .iter()
            .for_each(|loads| samples.push(share(loads) * 100.0));
        samples
    };
    for (name, share) in [
        (
            "nodes are filled, on average",
            (|l| l.mean) as fn(&Loads) -> f64,
        ),
        ("· fullest of 99 in 100 nodes, of the average", |l| {
            l.p99 / l.mean
        }),
        ("· fullest node, of the average", |l| l.max / l.mean),
        ("· standard deviation, of the average", |l| {
            l.deviation / l.mean
        }),
    ] {
        figures.push(Figure::percent(name, &of(share)));
    }
    let share = |count: u64| format!("{:.3} %", count as f64 * 100.0 / outcome.creates as f64);
    notes.push(format!(
        "{} creates by {SERVERS} servers, seed {SEED}, lives of {} s, figures up to {} s old: the first \
         node was full for {}, away or faulty for {}; no node took {}, of which {} while most had room; \
         {} waited for their template; nodes that held more than they may: {}",
        outcome.creates,
        LIFE.as_secs(),
        simulation::HEARTBEAT.as_secs(),
        share(outcome.first_full),
        share(outcome.first_failed),
        share(outcome.nowhere),
        outcome.nowhere_with_room,
        share(outcome.fetched),
        outcome.over,
    ));
    Ok(())
}
