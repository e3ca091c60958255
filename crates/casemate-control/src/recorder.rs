//! What happens, on its way to the history.
//!
//! Whoever notes something never waits for it and never fails by it: entries stand in a bounded
//! line, one task writes them in batches, and what does not fit is dropped and counted. Every
//! minute the same task lets the history forget.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use casemate_history::{EventKind, History, HistoryError, LifecycleEvent, LogLine, TeamPoint};
use casemate_types::pauses::drawn;
use casemate_types::{Sample, SandboxId, TeamId, Timestamp, chain, steady};
use jiff::SignedDuration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Control;
use crate::agent_log::{self, Read, Round};
use crate::logs::line_of;

/// Entries that may wait; a message of samples is one.
const WAITING_MAX: usize = 8192;
/// Entries of one write.
const BATCH_MAX: usize = 512;
/// How long entries are gathered before a write. Nobody waits for it, and beside a create every
/// write would cost the sandbox's first command some of its processor.
pub(crate) const GATHER: Duration = Duration::from_millis(300);
/// Changes of one sandbox that are noted in a [`TRIM_ROUND`]: a client that moves a deadline in a
/// loop must not push out what happened to others. The last of those beyond is noted when the round
/// or the sandbox ends, so that what is read last is what holds. Creation and end are always noted.
const UPDATES_MAX: u32 = 30;
const TRIM_ROUND: Duration = Duration::from_secs(60);

enum Entry {
    Samples(Vec<Sample>),
    Event(LifecycleEvent),
    Lines(Vec<LogLine>),
}

/// The line, and what was taken from it and is not written yet.
pub(crate) struct Recorder {
    line: mpsc::Sender<Entry>,
    inbox: Mutex<Inbox>,
    dropped: AtomicU64,
    /// Changes in this round.
    updates: std::sync::Mutex<HashMap<SandboxId, Updates>>,
    /// Lines of sandboxes in this round.
    lines: std::sync::Mutex<Round>,
}

#[derive(Default)]
struct Updates {
    noted: u32,
    /// The latest beyond the limit.
    waiting: Option<LifecycleEvent>,
}

struct Inbox {
    line: mpsc::Receiver<Entry>,
    losses: Losses,
    /// Kept until it is written: whoever is stopped in between leaves it to the next.
    taken: Vec<Entry>,
}

impl Default for Recorder {
    fn default() -> Self {
        let (line, inbox) = mpsc::channel(WAITING_MAX);
        let inbox = Inbox {
            line: inbox,
            losses: Losses::default(),
            taken: Vec::new(),
        };
        Self {
            line,
            inbox: Mutex::new(inbox),
            dropped: AtomicU64::new(0),
            updates: std::sync::Mutex::default(),
            lines: std::sync::Mutex::default(),
        }
    }
}

impl Recorder {
    pub(crate) fn samples(&self, samples: Vec<Sample>) {
        self.put(Entry::Samples(samples));
    }

    /// It also becomes a line of its sandbox's log.
    pub(crate) fn event(&self, event: LifecycleEvent) {
        match event.kind {
            EventKind::Created => {}
            EventKind::Updated
            | EventKind::Paused
            | EventKind::Resumed
            | EventKind::Checkpointed => {
                let mut updates = self.updates();
                let updates = updates.entry(event.sandbox.clone()).or_default();
                if updates.noted == UPDATES_MAX {
                    updates.waiting = Some(event);
                    return;
                }
                updates.noted += 1;
            }
            EventKind::Killed => self.end_round_of(&event.sandbox, event.at),
        }
        self.put(Entry::Event(event));
    }

    /// What the round would say of it, ahead of its end. What the node read of its log at the very
    /// last may come after the news of that end, and counts anew.
    fn end_round_of(&self, sandbox: &SandboxId, at: Timestamp) {
        let updates = self.updates().remove(sandbox);
        if let Some(last) = updates.and_then(|updates| updates.waiting) {
            self.put(Entry::Event(last));
        }
        let left_out = self.round().end_of(sandbox, at);
        self.log_lines(left_out.into_iter().collect());
    }

    /// What a sandbox wrote to its log, as far as it goes in.
    pub(crate) fn log_read(&self, read: &Read<'_>) {
        let lines = self.round().take(read);
        self.log_lines(lines);
    }

    /// Its memory was full.
    pub(crate) fn memory_full(
        &self,
        sandbox: &SandboxId,
        team: &TeamId,
        at: Timestamp,
        processes: u64,
    ) {
        let line = agent_log::memory_full((sandbox, team), at, processes);
        self.log_lines(vec![line]);
    }

    fn end_round(&self) {
        {
            // Put while nobody adds a later one.
            let mut updates = self.updates();
            for (_, updates) in updates.drain() {
                if let Some(last) = updates.waiting {
                    self.put(Entry::Event(last));
                }
            }
        }
        let left_out = self.round().end(Timestamp::now());
        self.log_lines(left_out);
    }

    fn log_lines(&self, lines: Vec<LogLine>) {
        if !lines.is_empty() {
            self.put(Entry::Lines(lines));
        }
    }

    fn round(&self) -> std::sync::MutexGuard<'_, Round> {
        self.lines.lock().expect("no holder of this lock panics")
    }

    fn updates(&self) -> std::sync::MutexGuard<'_, HashMap<SandboxId, Updates>> {
        self.updates.lock().expect("no holder of this lock panics")
    }

    fn put(&self, entry: Entry) {
        if self.line.try_send(entry).is_ok() {
            return;
        }
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        if dropped.is_power_of_two() {
            tracing::warn!(
                dropped,
                "the history is too slow: {dropped} entries are lost"
            );
        }
    }

    /// Writes what waits; for the end, when nobody notes anything any more.
    pub(crate) async fn write_all(&self, history: &dyn History) {
        self.end_round();
        let mut inbox = self.inbox.lock().await;
        while let Ok(entry) = inbox.line.try_recv() {
            inbox.taken.push(entry);
        }
        inbox.write(history).await;
    }
}

impl Inbox {
    async fn write(&mut self, history: &dyn History) {
        let (mut samples, mut events, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for entry in &self.taken {
            match entry {
                Entry::Samples(some) => samples.extend_from_slice(some),
                Entry::Event(event) => {
                    lines.push(line_of(event));
                    events.push(event.clone());
                }
                Entry::Lines(some) => lines.extend_from_slice(some),
            }
        }
        if !samples.is_empty() {
            let written = tried(|| history.samples_append(&samples)).await;
            self.losses.note("samples", samples.len(), written);
        }
        if !events.is_empty() {
            let written = tried(|| history.events_append(&events)).await;
            self.losses.note("events", events.len(), written);
        }
        if !lines.is_empty() {
            let written = tried(|| history.logs_append(&lines)).await;
            self.losses.note("log lines", lines.len(), written);
        }
        self.taken.clear();
    }
}

/// Waits before what failed is written again: connections that were cut are all found to be so one by
/// one.
const AGAIN_AFTER: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(750),
];

/// A failure that took longer is of a database that is away: what waits for it meanwhile is bounded, and so
/// is the time that an end takes.
const AGAIN_WITHIN: Duration = Duration::from_secs(2);

/// As often as costs little. What the database had written all the same is there twice then.
async fn tried<Written>(write: impl Fn() -> Written) -> Result<(), HistoryError>
where
    Written: Future<Output = Result<(), HistoryError>>,
{
    let begun = Instant::now();
    for pause in AGAIN_AFTER {
        let written = write().await;
        if written.is_ok() || begun.elapsed() >= AGAIN_WITHIN {
            return written;
        }
        tokio::time::sleep(drawn(pause)).await;
    }
    write().await
}

/// Writes in a row that failed. Several come each second: a full disk would fill the log with them.
#[derive(Default)]
struct Losses(u32);

impl Losses {
    fn note(&mut self, what: &str, count: usize, written: Result<(), HistoryError>) {
        let Err(error) = written else {
            if self.0 > 0 {
                tracing::info!("the history is written again");
            }
            self.0 = 0;
            return;
        };
        self.0 += 1;
        if self.0.is_power_of_two() {
            tracing::warn!(
                error = chain(&error),
                count,
                failures = self.0,
                "could not write {count} {what}; they are lost"
            );
        }
    }
}

/// For ever.
pub(crate) async fn run(control: Arc<Control>) {
    let mut inbox = control.recorder.inbox.lock().await;
    let history = &*control.history;
    let mut trim = interval(TRIM_ROUND);
    trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut activity = interval(control.config.activity_every);
    activity.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut noted = Instant::now();
    let mut age = Age::default();
    loop {
        let Inbox {
            line,
            taken,
            losses,
        } = &mut *inbox;
        tokio::select! {
            _ = line.recv_many(taken, BATCH_MAX) => {
                tokio::time::sleep(GATHER).await;
                while taken.len() < BATCH_MAX && let Ok(more) = line.try_recv() {
                    taken.push(more);
                }
                inbox.write(history).await;
            }
            now = activity.tick() => {
                let mut points = points(&control, now - noted);
                noted = now;
                // Every server sees all of them.
                if !points.is_empty() && control.is_janitor() {
                    only_of_teams(&control, &mut points).await;
                    let written = tried(|| history.activity_append(&points)).await;
                    losses.note("team points", points.len(), written);
                }
            }
            _ = trim.tick() => {
                control.recorder.end_round();
                if !control.is_janitor() {
                    continue;
                }
                forget(&control, age.now(Timestamp::now(), steady::now())).await;
            }
        }
    }
}

fn points(control: &Control, span: Duration) -> Vec<TeamPoint> {
    let at = Timestamp::now();
    let point = |(team, seen): (_, crate::quota::Seen)| TeamPoint {
        team,
        at,
        span,
        concurrent: seen.most,
        started: seen.started,
    };
    control.quota.look().into_iter().map(point).collect()
}

/// Where machines join, who is counted is the word of a node: what it made up must not fill the history.
async fn only_of_teams(control: &Control, points: &mut Vec<TeamPoint>) {
    if control.shared().is_none() {
        return;
    }
    match control.store.team_list().await {
        Ok(teams) => {
            let teams: HashSet<TeamId> = teams.into_iter().map(|team| team.id).collect();
            points.retain(|point| teams.contains(&point.team));
        }
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "it is not known which teams there are"
            );
            points.clear();
        }
    }
}

/// The clock by which the history ages: the wall clock, which is believed only a day after it was
/// set forward by much. A wrong date would else make all that is kept too old at once.
#[derive(Default)]
struct Age {
    /// By how much the wall clock was ahead of steady time, as far as it is believed.
    believed: SignedDuration,
    /// Since when (in steady time) it has been further ahead.
    doubted: Option<Timestamp>,
}

/// A step forward up to this much is believed at once.
const STEP_MAX: SignedDuration = SignedDuration::from_hours(1);
const DOUBTED_FOR: SignedDuration = SignedDuration::from_hours(24);

impl Age {
    fn now(&mut self, wall: Timestamp, steady: Timestamp) -> Timestamp {
        let ahead = wall.duration_since(steady);
        if ahead <= self.believed + STEP_MAX {
            (self.believed, self.doubted) = (ahead, None);
            return wall;
        }
        let since = *self.doubted.get_or_insert_with(|| {
            tracing::warn!(
                "the clock was set forward by {:#}: the history forgets by the former for a day",
                ahead - self.believed
            );
            steady
        });
        if steady.duration_since(since) >= DOUBTED_FOR {
            (self.believed, self.doubted) = (ahead, None);
            return wall;
        }
        steady
            .saturating_add(self.believed)
            .unwrap_or(Timestamp::MAX)
    }
}

async fn forget(control: &Control, now: Timestamp) {
    let keep = &control.config.retention;
    match control.history.trim(now, keep).await {
        Ok(done) if done.cut => tracing::warn!(
            rows = done.rows,
            bytes = done.bytes,
            bytes_max = keep.bytes_max,
            "the history was too large: the oldest of it went before its time"
        ),
        Ok(done) => tracing::debug!(rows = done.rows, bytes = done.bytes, "trimmed the history"),
        Err(error) => tracing::warn!(
            error = chain(&error),
            "could not trim the history; trying again later"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_log::LINES_LEFT_OUT;

    fn event(kind: EventKind, second: i64) -> LifecycleEvent {
        LifecycleEvent {
            id: uuid::Uuid::new_v4(),
            kind,
            at: Timestamp::from_second(second).unwrap(),
            team: TeamId::parse("11111111-1111-1111-1111-111111111111").unwrap(),
            sandbox: SandboxId::parse("iaaaaaaaaaaaaaaaaaaaa").unwrap(),
            execution: uuid::Uuid::nil(),
            template: casemate_types::TemplateId::parse("base00000000000000000").unwrap(),
            build: None,
            data: serde_json::Value::Null,
        }
    }

    /// Seconds of the events and texts of the lines that wait to be written.
    fn waiting(recorder: &Recorder) -> (Vec<i64>, Vec<String>) {
        let mut inbox = recorder.inbox.try_lock().unwrap();
        let (mut events, mut lines) = (Vec::new(), Vec::new());
        while let Ok(entry) = inbox.line.try_recv() {
            match entry {
                Entry::Event(event) => events.push(event.at.as_second()),
                Entry::Lines(some) => lines.extend(some.into_iter().map(|l| l.entry.message)),
                Entry::Samples(_) => {}
            }
        }
        (events, lines)
    }

    #[test]
    fn of_too_many_changes_the_last_is_noted() {
        let recorder = Recorder::default();
        for second in 0..100 {
            recorder.event(event(EventKind::Updated, second));
        }
        let first: Vec<i64> = (0..i64::from(UPDATES_MAX)).collect();
        assert_eq!(waiting(&recorder).0, first);
        recorder.end_round();
        assert_eq!(waiting(&recorder).0, [99]);
        recorder.end_round();
        assert!(waiting(&recorder).0.is_empty());
    }

    #[test]
    fn an_end_comes_after_what_was_left_out() {
        let recorder = Recorder::default();
        for second in 0..100 {
            recorder.event(event(EventKind::Updated, second));
        }
        let of = event(EventKind::Killed, 200);
        recorder.log_read(&Read {
            sandbox: &of.sandbox,
            team: &of.team,
            since: of.at,
            at: of.at,
            lines: "no line of ours\n",
        });
        recorder.event(of);
        let (events, lines) = waiting(&recorder);
        assert_eq!(events[events.len() - 2..], [99, 200]);
        assert_eq!(lines, [LINES_LEFT_OUT]);
        recorder.end_round();
        assert_eq!(waiting(&recorder), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_clock_that_is_set_far_forward_is_believed_after_a_day() {
        let hours = |hours: i64| Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap();
        let mut age = Age::default();
        let mut check = |wall, steady, expected| {
            assert_eq!(
                age.now(hours(wall), hours(steady)),
                hours(expected),
                "{wall}"
            );
        };
        check(0, 0, 0);
        check(2, 1, 2);
        // Set back: nothing is too old by that.
        check(-10, 2, -10);
        check(9600, 3, -9);
        check(9626, 26, 14);
        check(9627, 27, 9627);
        check(9628, 28, 9628);
    }
}
