//! Figures side by side with their floors and targets, for people and for programs.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::error::BenchError;
use super::machine::Machine;
use super::samples::Samples;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "µs")]
    Microseconds,
    #[serde(rename = "MiB")]
    Mebibytes,
    #[serde(rename = "%")]
    Percent,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::Mebibytes => "MiB",
            Self::Percent => "%",
        }
    }
}

/// One measured thing.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub name: String,
    pub unit: Unit,
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
    /// What the same needs without us; the sum of several where it takes several.
    pub floors: Vec<Floor>,
    /// What p50 was hoped to stay below.
    pub target: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Floor {
    pub name: String,
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
}

impl Figure {
    pub(super) fn time(name: &str, samples: &Samples) -> Self {
        Self::new(name, Unit::Milliseconds, samples)
    }

    /// Of samples in microseconds.
    pub(super) fn short_time(name: &str, samples: &Samples) -> Self {
        Self::new(name, Unit::Microseconds, samples)
    }

    pub(super) fn memory(name: &str, samples: &Samples) -> Self {
        Self::new(name, Unit::Mebibytes, samples)
    }

    pub(super) fn percent(name: &str, samples: &Samples) -> Self {
        Self::new(name, Unit::Percent, samples)
    }

    fn new(name: &str, unit: Unit, samples: &Samples) -> Self {
        let (count, p50, p99) = (samples.count(), samples.p50(), samples.p99());
        let name = name.to_owned();
        Self {
            name,
            unit,
            count,
            p50,
            p99,
            floors: Vec::new(),
            target: None,
        }
    }

    pub(super) fn beside(mut self, name: &str, samples: &Samples) -> Self {
        let (count, p50, p99) = (samples.count(), samples.p50(), samples.p99());
        self.floors.push(Floor {
            name: name.to_owned(),
            count,
            p50,
            p99,
        });
        self
    }

    pub(super) fn at_most(mut self, target: f64) -> Self {
        self.target = Some(target);
        self
    }

    /// After all floors were named.
    pub(super) fn at_most_above_floor(self, more: f64) -> Self {
        let target = self.floor_p50() + more;
        self.at_most(target)
    }

    fn floor_p50(&self) -> f64 {
        self.floors.iter().map(|floor| floor.p50).sum()
    }

    /// Whether the target is met; `None` without one.
    #[must_use]
    pub fn is_within(&self) -> Option<bool> {
        self.target.map(|target| self.p50 <= target)
    }

    fn row(&self, commit: &str) -> String {
        let unit = self.unit.name();
        let floor = match self.floors.is_empty() {
            true => "–".to_owned(),
            false => {
                let parts: Vec<_> = self
                    .floors
                    .iter()
                    .map(|part| format!("{:.2}", part.p50))
                    .collect();
                format!("{} {unit}", parts.join(" + "))
            }
        };
        let above = match self.floors.is_empty() {
            true => "–".to_owned(),
            false => {
                let floor = self.floor_p50();
                format!("{:+.2} {unit}, ×{:.1}", self.p50 - floor, self.p50 / floor)
            }
        };
        let target = match (self.target, self.is_within()) {
            (Some(target), Some(true)) => format!("≤ {target:.2} {unit}: yes"),
            (Some(target), _) => format!("≤ {target:.2} {unit}: **no**"),
            (None, _) => "–".to_owned(),
        };
        let p99 = match self.count {
            0 | 1 => "–".to_owned(),
            _ => format!("{:.2} {unit}", self.p99),
        };
        let Self {
            name, count, p50, ..
        } = self;
        format!(
            "| {name} | {p50:.2} {unit} | {p99} | {floor} | {above} | {target} | {count} | {commit} |"
        )
    }
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub figures: Vec<Figure>,
    pub notes: Vec<String>,
}

impl Report {
    /// The table, as Markdown.
    #[must_use]
    pub fn markdown(&self, commit: &str, date: &str) -> String {
        let mut text = format!(
            "Measured on {date} at commit {commit}: {}.\n\n",
            self.machine
        );
        text.push_str("| figure | p50 | p99 | floor, p50 | above it | target | count | commit |\n");
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        for figure in &self.figures {
            text.push_str(&figure.row(commit));
            text.push('\n');
        }
        text.push_str("\nFloors, measured in turn with the figures:\n\n");
        for figure in &self.figures {
            for Floor {
                name,
                count,
                p50,
                p99,
            } in &figure.floors
            {
                let unit = figure.unit.name();
                text.push_str(&format!(
                    "- {name} ({}): p50 {p50:.2} {unit}, p99 {p99:.2} {unit}, count {count}\n",
                    figure.name
                ));
            }
        }
        for note in &self.notes {
            text.push_str(&format!("- Note: {note}.\n"));
        }
        text
    }
}

const BEGIN: &str = "<!-- casemate bench: begin -->";
const END: &str = "<!-- casemate bench: end -->";

const NEW_FILE: &str = "# Performance\n\n\
    Written by `casemate bench --report`; the text around the table is kept. Each figure stands \
    beside its floor: what the bare kernel, or the SDK alone, needs for the same, measured in turn \
    with it. p99 on a shared machine is reported, not promised.\n\n";

/// Puts a report into a document between two marks, in place of the one before. What people wrote
/// around it stays; a document without marks gets them at its end.
pub fn write_into(path: &Path, report: &str) -> Result<(), BenchError> {
    let fault = |source| BenchError::Report {
        path: path.to_owned(),
        source,
    };
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => NEW_FILE.to_owned(),
        Err(error) => return Err(fault(error)),
    };
    fs::write(path, placed(&before, report)).map_err(fault)
}

fn placed(before: &str, report: &str) -> String {
    let block = format!("{BEGIN}\n{}\n{END}", report.trim());
    let begin = before.find(BEGIN);
    let end = before.find(END).map(|at| at + END.len());
    match (begin, end) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{block}{}", &before[..begin], &before[end..])
        }
        _ => format!("{}\n\n{block}\n", before.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::default();
        values.iter().for_each(|value| samples.push(*value));
        samples
    }

    #[track_caller]
    fn check(figure: &Figure, expected: &str) {
        assert_eq!(figure.row("abc"), expected);
    }

    #[test]
    fn a_row_says_whether_its_target_is_met() {
        let time = |value| {
            Figure::time("x", &samples(&[value, value]))
                .beside("a", &samples(&[2.0]))
                .beside("b", &samples(&[1.0]))
                .at_most_above_floor(5.0)
        };
        check(
            &time(8.0),
            "| x | 8.00 ms | 8.00 ms | 2.00 + 1.00 ms | +5.00 ms, ×2.7 | ≤ 8.00 ms: yes | 2 | abc |",
        );
        check(
            &time(9.0),
            "| x | 9.00 ms | 9.00 ms | 2.00 + 1.00 ms | +6.00 ms, ×3.0 | ≤ 8.00 ms: **no** | 2 | abc |",
        );
        check(
            &Figure::memory("m", &samples(&[1.5])).at_most(2.0),
            "| m | 1.50 MiB | – | – | – | ≤ 2.00 MiB: yes | 1 | abc |",
        );
        check(
            &Figure::time("p", &samples(&[1.0])),
            "| p | 1.00 ms | – | – | – | – | 1 | abc |",
        );
    }

    #[test]
    fn a_report_takes_the_place_of_the_one_before_and_of_nothing_else() {
        let once = placed("# P\n\nwords\n", "one");
        assert_eq!(once, format!("# P\n\nwords\n\n{BEGIN}\none\n{END}\n"));
        let more = format!("{once}\nwords after\n");
        let twice = placed(&more, "two\n");
        assert_eq!(
            twice,
            format!("# P\n\nwords\n\n{BEGIN}\ntwo\n{END}\n\nwords after\n")
        );
        // Marks in the wrong order are not ours to mend.
        assert!(placed(&format!("{END} {BEGIN}"), "x").ends_with(&format!("{BEGIN}\nx\n{END}\n")));
    }
}
