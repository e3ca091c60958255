//! Figures that need no platform: they are of parts of it, with the real code.

mod listing;
mod placement;

use std::sync::Arc;

use casemate_store::Store;

use super::error::BenchError;
use super::machine::Machine;
use super::report::{Figure, Report};

/// What is measured without a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlonePart {
    /// Which nodes creates go to, simulated.
    Placement,
    /// Pages of a long list of sandboxes.
    Listing,
}

impl AlonePart {
    /// Each with the name that users give it.
    pub const NAMED: [(&str, Self); 2] =
        [("placement", Self::Placement), ("listing", Self::Listing)];

    /// `None`: no part has that name.
    pub fn named(name: &str) -> Option<Self> {
        let named = Self::NAMED.iter().find(|(other, _)| *other == name);
        named.map(|(_, part)| *part)
    }
}

/// What to measure, and how much of it.
pub struct Alone {
    pub parts: Vec<AlonePart>,
    /// Samples of a page.
    pub count: usize,
    /// Nodes and creates of the simulation.
    pub nodes: usize,
    pub creates: u64,
    /// Rows of a list.
    pub rows: usize,
    /// Stores without any team, with their names. They are filled.
    pub stores: Vec<(&'static str, Arc<dyn Store>)>,
}

/// Measures everything, telling `progress` how far it is, in percent, and what it does. What was measured
/// before something failed is told beside the failure.
pub async fn run_alone(
    options: &Alone,
    progress: &(dyn Fn(u8, &str) + Sync),
) -> (Report, Option<BenchError>) {
    let (mut figures, mut notes, mut fault) = (Vec::new(), Vec::new(), None);
    for part in &options.parts {
        let measured = match part {
            AlonePart::Placement => {
                progress(0, "a simulation of placement");
                placement::measure(options, &mut figures, &mut notes).await
            }
            AlonePart::Listing => {
                progress(50, "pages of a long list");
                listing::measure(options, &mut figures, &mut notes).await
            }
        };
        if let Err(error) = measured {
            fault = Some(error);
            break;
        }
    }
    progress(100, "done");
    let report = Report {
        machine: Machine::read(),
        figures,
        notes,
    };
    (report, fault)
}

type Figures = Vec<Figure>;
type Notes = Vec<String>;
