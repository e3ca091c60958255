//! What sandboxes write to their logs, on its way to the history.
//!
//! It comes from inside a sandbox and may be anything: whoever is root there writes as the agent
//! does. It reaches the log of that sandbox and no other, because the node says whose it is. Only
//! known fields are taken, texts are cut, what would act on a terminal is written out, times lie
//! between two readings, and there is so much in a minute and no more. What is left out is counted
//! and said in the log itself.

use std::collections::{BTreeMap, HashMap};

use casemate_history::{LogEntry, LogLevel, LogLine};
use casemate_types::{SandboxId, TeamId, Timestamp};
use serde::Deserialize;

/// Lines of one sandbox in a round; further ones are left out.
const SANDBOX_LINES_MAX: u32 = 300;
/// The same of all sandboxes of a team: they must not push out what happened to others.
const TEAM_LINES_MAX: u32 = 6000;
/// A text of a line, characters; the agent cuts earlier.
const TEXT_CHARS_MAX: usize = 512;
/// The same of a command.
const COMMAND_CHARS_MAX: usize = 1100;

pub(crate) const LINES_LEFT_OUT: &str = "Lines of the log are left out";

/// Bytes that a node read from a sandbox's log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read<'a> {
    pub(crate) sandbox: &'a SandboxId,
    pub(crate) team: &'a TeamId,
    /// The reading before, or the sandbox's start.
    pub(crate) since: Timestamp,
    pub(crate) at: Timestamp,
    pub(crate) lines: &'a str,
}

/// What was taken and left out in this round.
#[derive(Debug, Default)]
pub(crate) struct Round {
    sandboxes: HashMap<SandboxId, Count>,
    teams: HashMap<TeamId, u32>,
}

#[derive(Debug)]
struct Count {
    team: TeamId,
    taken: u32,
    too_many: u64,
    unreadable: u64,
}

impl Round {
    /// The lines of a reading that go into the log.
    pub(crate) fn take(&mut self, read: &Read<'_>) -> Vec<LogLine> {
        let sandbox = self.sandboxes.entry(read.sandbox.clone());
        let count = sandbox.or_insert_with(|| Count {
            team: read.team.clone(),
            taken: 0,
            too_many: 0,
            unreadable: 0,
        });
        let of_team = self.teams.entry(read.team.clone()).or_default();
        let mut lines = Vec::new();
        for line in read.lines.lines() {
            if count.taken >= SANDBOX_LINES_MAX || *of_team >= TEAM_LINES_MAX {
                count.too_many += 1;
                continue;
            }
            match parse(line, read.since, read.at) {
                Some(entry) => {
                    count.taken += 1;
                    *of_team += 1;
                    lines.push(LogLine {
                        sandbox: read.sandbox.clone(),
                        team: read.team.clone(),
                        entry,
                    });
                }
                None => count.unreadable += 1,
            }
        }
        lines
    }

    /// Begins the next round; what was left out in this one, as lines.
    pub(crate) fn end(&mut self, now: Timestamp) -> Vec<LogLine> {
        let round = std::mem::take(self);
        let left_out = |(sandbox, count): (_, Count)| count.left_out(&sandbox, now);
        round.sandboxes.into_iter().filter_map(left_out).collect()
    }

    /// What was left out of a sandbox that ends.
    pub(crate) fn end_of(&mut self, sandbox: &SandboxId, now: Timestamp) -> Option<LogLine> {
        self.sandboxes.remove(sandbox)?.left_out(sandbox, now)
    }
}

impl Count {
    fn left_out(&self, sandbox: &SandboxId, now: Timestamp) -> Option<LogLine> {
        let fields = [("too_many", self.too_many), ("unreadable", self.unreadable)];
        let mut counted = fields
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name, count.to_string()))
            .peekable();
        counted.peek()?;
        let whose = (sandbox, &self.team);
        Some(platform_line(
            whose,
            now,
            LogLevel::Warn,
            LINES_LEFT_OUT,
            counted,
        ))
    }
}

/// The kernel ended processes because the sandbox's memory was full.
pub(crate) fn memory_full(whose: (&SandboxId, &TeamId), at: Timestamp, processes: u64) -> LogLine {
    let message = "Memory limit reached: the kernel ended a process";
    let counted = [("processes", processes.to_string())];
    platform_line(whose, at, LogLevel::Warn, message, counted)
}

fn platform_line(
    (sandbox, team): (&SandboxId, &TeamId),
    at: Timestamp,
    level: LogLevel,
    message: &str,
    fields: impl IntoIterator<Item = (&'static str, String)>,
) -> LogLine {
    let own = [("logger", "platform".to_owned())];
    let fields = fields.into_iter().chain(own);
    LogLine {
        sandbox: sandbox.clone(),
        team: team.clone(),
        entry: LogEntry {
            at,
            level,
            message: message.into(),
            fields: fields
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        },
    }
}

/// A line as the agent writes it; anything else in it is ignored.
#[derive(Deserialize)]
struct Said {
    /// Milliseconds since the epoch.
    time: u64,
    level: Level,
    logger: Logger,
    message: String,
    event_type: Option<EventType>,
    pid: Option<u32>,
    user: Option<String>,
    tag: Option<String>,
    command: Option<String>,
    request_timeout_ms: Option<u64>,
    process_result: Option<String>,
    stdout_bytes: Option<u64>,
    stderr_bytes: Option<u64>,
    pty_bytes: Option<u64>,
    error: Option<String>,
    version: Option<String>,
    lost: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Logger {
    Envd,
    Process,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EventType {
    ProcessStart,
    ProcessEnd,
}

fn parse(line: &str, since: Timestamp, at: Timestamp) -> Option<LogEntry> {
    let said: Said = serde_json::from_str(line).ok()?;
    let time = i64::try_from(said.time).ok();
    let time = time.and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let text = |text: Option<String>| text.map(|text| clean(&text, TEXT_CHARS_MAX));
    let logger = match said.logger {
        Logger::Envd => "envd",
        Logger::Process => "process",
    };
    let event_type = said.event_type.map(|kind| match kind {
        EventType::ProcessStart => "process_start".to_owned(),
        EventType::ProcessEnd => "process_end".to_owned(),
    });
    let command = said.command.map(|text| clean(&text, COMMAND_CHARS_MAX));
    let fields = [
        ("logger", Some(logger.to_owned())),
        ("event_type", event_type),
        ("pid", said.pid.map(|pid| pid.to_string())),
        ("user", text(said.user)),
        ("tag", text(said.tag)),
        ("command", command),
        ("request_timeout_ms", number(said.request_timeout_ms)),
        ("process_result", text(said.process_result)),
        ("stdout_bytes", number(said.stdout_bytes)),
        ("stderr_bytes", number(said.stderr_bytes)),
        ("pty_bytes", number(said.pty_bytes)),
        ("error", text(said.error)),
        ("version", text(said.version)),
        ("lost", number(said.lost)),
    ];
    let fields = fields.into_iter();
    let fields: BTreeMap<_, _> = fields
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    Some(LogEntry {
        at: time.unwrap_or(at).max(since).min(at),
        level: match said.level {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        },
        message: clean(&said.message, TEXT_CHARS_MAX),
        fields,
    })
}

/// Bounded, and without anything that would move, hide or colour what a terminal shows.
fn clean(text: &str, chars_max: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(chars_max));
    for letter in text.chars().take(chars_max) {
        if acts(letter) {
            clean.extend(letter.escape_default());
        } else {
            clean.push(letter);
        }
    }
    clean
}

/// Controls of both sets, and the invisible letters that change lines or their direction.
fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    fn read<'a>(sandbox: &'a SandboxId, team: &'a TeamId, lines: &'a str) -> Read<'a> {
        Read {
            sandbox,
            team,
            since: at(0),
            at: at(1000),
            lines,
        }
    }

    const START: &str = r#"{"time":1800000000500,"level":"info","logger":"process","message":"Process started","event_type":"process_start","pid":7,"command":"ls -l","request_timeout_ms":60000,"traceID":{"x":[1]}}"#;

    #[test]
    fn a_line_of_the_agent_is_taken_with_its_fields() {
        let entry = parse(START, at(0), at(1000)).unwrap();
        assert_eq!((entry.at, entry.level), (at(500), LogLevel::Info));
        let fields = [
            ("command", "ls -l"),
            ("event_type", "process_start"),
            ("logger", "process"),
            ("pid", "7"),
            ("request_timeout_ms", "60000"),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(entry.fields, fields.into());
    }

    #[test]
    fn anything_else_is_refused() {
        let with = |what: &str, instead: &str| START.replace(what, instead);
        for line in [
            String::new(),
            "no JSON".into(),
            "[]".into(),
            "{}".into(),
            "{\"a\":".repeat(100_000),
            with("\"info\"", "\"fatal\""),
            with("\"info\"", "\"INFO\""),
            with("\"process\"", "\"platform\""),
            with("\"process_start\"", "\"sandbox_killed\""),
            with("\"pid\":7", "\"pid\":-7"),
            with("\"pid\":7", "\"pid\":\"7\""),
            with("1800000000500", "-1"),
            with("\"ls -l\"", "{\"a\":1}"),
            START[..START.len() - 1].into(),
        ] {
            let start = &line[..line.len().min(80)];
            assert_eq!(parse(&line, at(0), at(1000)), None, "{start}");
        }
    }

    #[test]
    fn nobody_writes_into_the_past_or_the_future() {
        for (time, expected) in [
            ("0", at(0)),
            ("1799999999999", at(0)),
            ("1800000009999", at(1000)),
            ("18446744073709551615", at(1000)),
        ] {
            let line = START.replace("1800000000500", time);
            assert_eq!(
                parse(&line, at(0), at(1000)).unwrap().at,
                expected,
                "{time}"
            );
        }
        // A clock that was set back: the reading is what counts.
        assert_eq!(parse(START, at(900), at(100)).unwrap().at, at(100));
    }

    #[test]
    fn nothing_acts_on_a_terminal() {
        let evil = r#"\u001b[2J\u001b]0;x\u0007 \u009b31m \r\n \u202egnp.exe \u200b\u2028"#;
        let line = START
            .replace("ls -l", evil)
            .replace("Process started", evil);
        let entry = parse(&line, at(0), at(1000)).unwrap();
        for text in [&entry.message, &entry.fields["command"]] {
            assert!(text.chars().all(|letter| !acts(letter)), "{text}");
            assert!(
                text.starts_with("\\u{1b}[2J") && text.contains("\\r\\n"),
                "{text}"
            );
        }
        let long = START.replace("ls -l", &"\u{1}".repeat(100_000).escape_debug().to_string());
        assert_eq!(parse(&long, at(0), at(1000)), None, "no JSON any more");
        let long = START.replace("ls -l", &"\\u0001".repeat(100_000));
        let entry = parse(&long, at(0), at(1000)).unwrap();
        assert_eq!(
            entry.fields["command"].len(),
            COMMAND_CHARS_MAX * "\\u{1}".len()
        );
    }

    #[test]
    fn a_flood_is_cut_counted_and_said_and_hurts_no_other_team() {
        let team = |last: char| -> TeamId {
            let id = format!("00000000-0000-4000-8000-00000000000{last}");
            id.parse().unwrap()
        };
        let (team, quiet) = (team('1'), team('2'));
        let (loud, other) = (SandboxId::random(), SandboxId::random());
        let mut round = Round::default();
        let flood = format!("{START}\n").repeat(1000) + "rubbish\n";
        let taken = round.take(&read(&loud, &team, &flood));
        assert_eq!(taken.len(), SANDBOX_LINES_MAX as usize);
        assert!(taken.iter().all(|line| line.sandbox == loud));
        assert_eq!(round.take(&read(&other, &team, START)).len(), 1);
        // Its other sandboxes, until the team's share is used up.
        let mut of_team = SANDBOX_LINES_MAX + 1;
        while of_team < TEAM_LINES_MAX {
            let next = SandboxId::random();
            of_team += u32::try_from(round.take(&read(&next, &team, &flood)).len()).unwrap();
        }
        assert_eq!(of_team, TEAM_LINES_MAX);
        assert_eq!(round.take(&read(&other, &team, START)), []);
        assert_eq!(round.take(&read(&other, &quiet, START)).len(), 1);
        let said = round.end(at(60_000));
        let of_loud: Vec<_> = said.iter().filter(|line| line.sandbox == loud).collect();
        assert_eq!(of_loud.len(), 1);
        assert_eq!(of_loud[0].entry.level, LogLevel::Warn);
        assert_eq!(of_loud[0].entry.fields["too_many"], "701");
        assert!(round.end(at(120_000)).is_empty());
        // The next round begins anew; rubbish is counted, too.
        assert_eq!(round.take(&read(&loud, &team, "rubbish\n\n")), []);
        let said = round.end(at(180_000));
        assert_eq!(said[0].entry.fields["unreadable"], "2");
        assert!(!said[0].entry.fields.contains_key("too_many"));
    }
}
