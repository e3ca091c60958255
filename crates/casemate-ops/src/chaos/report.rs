//! What a run says at its end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use casemate_failpoint::Point;
use serde::Serialize;

use super::ledger::Ledger;

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// It ended before its end.
    pub stopped: bool,
    /// At points and at random.
    pub kills: u64,
    /// Deaths at each point, also those that had none.
    pub points: BTreeMap<String, u64>,
    /// Kills at random, by what was killed.
    pub at_random: BTreeMap<String, u64>,
    pub sandboxes_created: u64,
    pub creates_unanswered: u64,
    pub sandboxes_killed: u64,
    pub sandboxes_expired: u64,
    pub paused: u64,
    /// Of them with their files alone.
    pub paused_with_files_alone: u64,
    pub paused_by_their_deadline: u64,
    pub resumed: u64,
    pub woken_by_traffic: u64,
    pub snapshots_taken: u64,
    pub snapshots_deleted: u64,
    pub sandboxes_from_snapshots: u64,
    pub forks: u64,
    pub templates_built: u64,
    pub builds_failed: u64,
    pub sandboxes_from_templates: u64,
    pub looks: u64,
    pub lists: u64,
    /// Calls that failed while nobody was there to answer.
    pub retries: u64,
    /// From a death of `up` until it was ready again.
    pub longest_outage_ms: u64,
    pub seconds: u64,
    /// Acknowledged sandboxes that were not there any more.
    pub lost: u64,
    pub wrong_answers: u64,
    /// The first hundred of both, in words.
    pub findings: Vec<String>,
    /// What the platform said, kept when something was found.
    pub log: Option<PathBuf>,
}

impl Report {
    pub(super) fn new(
        ledger: &Ledger,
        deaths: BTreeMap<Point, u64>,
        took: Duration,
        outage: Duration,
        stopped: bool,
    ) -> Self {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let wrong = ledger.all_wrong();
        let of = |point: &Point| deaths.get(point).copied().unwrap_or_default();
        let murders = ledger.murders_by_victim();
        Self {
            stopped,
            kills: deaths.values().sum::<u64>() + murders.values().sum::<u64>(),
            points: Point::ALL.iter().map(|p| (p.to_string(), of(p))).collect(),
            at_random: murders.iter().map(|(v, n)| (v.to_string(), *n)).collect(),
            sandboxes_created: count(&ledger.created),
            creates_unanswered: count(&ledger.unanswered),
            sandboxes_killed: count(&ledger.killed),
            sandboxes_expired: count(&ledger.expired),
            paused: count(&ledger.paused),
            paused_with_files_alone: count(&ledger.paused_files),
            paused_by_their_deadline: count(&ledger.fell_asleep),
            resumed: count(&ledger.resumed),
            woken_by_traffic: count(&ledger.woken),
            snapshots_taken: count(&ledger.snapshots),
            snapshots_deleted: count(&ledger.snapshots_deleted),
            sandboxes_from_snapshots: count(&ledger.from_snapshots),
            forks: count(&ledger.forked),
            templates_built: count(&ledger.built),
            builds_failed: count(&ledger.builds_failed),
            sandboxes_from_templates: count(&ledger.from_templates),
            looks: count(&ledger.looks),
            lists: count(&ledger.lists),
            retries: count(&ledger.retries),
            longest_outage_ms: u64::try_from(outage.as_millis()).unwrap_or(u64::MAX),
            seconds: took.as_secs(),
            lost: wrong.lost,
            wrong_answers: wrong.answers,
            findings: wrong.sentences,
            log: None,
        }
    }

    /// It came to its end, found nothing wrong, and there was a death at every point.
    pub fn is_good(&self) -> bool {
        !self.stopped && self.is_clean() && self.points.values().all(|count| *count > 0)
    }

    /// Nothing was lost, and no answer was wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.lost == 0 && self.wrong_answers == 0
    }

    pub fn words(&self) -> String {
        let stopped = match self.stopped {
            true => "stopped, and the installation removed, after ",
            false => "",
        };
        let mut text = format!(
            "{stopped}{} kills in {} s: {} lost, {} wrong answers\n",
            self.kills, self.seconds, self.lost, self.wrong_answers
        );
        let mut line = |what: &str, count: u64| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {count:>7}  {what}");
        };
        for (point, count) in &self.points {
            line(&format!("deaths at {point}"), *count);
        }
        for (victim, count) in &self.at_random {
            line(&format!("kills at random: {victim}"), *count);
        }
        line("sandboxes created", self.sandboxes_created);
        line("creates without an answer", self.creates_unanswered);
        line("sandboxes ended by their client", self.sandboxes_killed);
        line("sandboxes ended by their deadline", self.sandboxes_expired);
        line("pauses", self.paused);
        line("of them with files alone", self.paused_with_files_alone);
        line("pauses by a deadline", self.paused_by_their_deadline);
        line("resumes", self.resumed);
        line("wake-ups by traffic", self.woken_by_traffic);
        line("snapshots taken", self.snapshots_taken);
        line("snapshots deleted", self.snapshots_deleted);
        line("sandboxes from snapshots", self.sandboxes_from_snapshots);
        line("forks", self.forks);
        line("templates built", self.templates_built);
        line("builds that a death ended", self.builds_failed);
        line("sandboxes from templates", self.sandboxes_from_templates);
        line("looks at files and memory", self.looks);
        line("looks at the list", self.lists);
        line("calls made again", self.retries);
        line("longest outage, ms", self.longest_outage_ms);
        for sentence in &self.findings {
            let _ = writeln!(text, "WRONG: {sentence}");
        }
        if let Some(log) = &self.log {
            let _ = writeln!(text, "the platform's log is {}", log.display());
        }
        text.trim_end().to_owned()
    }
}
