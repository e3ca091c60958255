//! The log that the platform reads: lines about the agent and the processes that it starts.
//!
//! A line is one write of at most [`LOG_LINE_BYTES`], which a pipe takes whole or not at all, and
//! never waits for: a platform that is slow or away costs lines and no time. How many were lost is
//! said before the next one. Names follow upstream's lines. What processes write is not logged.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use envd_wire::process::ProcessConfig;
use envd_wire::process::process_event::EndEvent;
use serde::Serialize;

use crate::VERSION;
use crate::limits::{LOG_COMMAND_BYTES, LOG_LINE_BYTES, LOG_TEXT_BYTES};

/// Where lines go; nowhere without a platform that reads them.
#[derive(Debug, Default)]
pub struct Log {
    pipe: Option<File>,
    lost: Cell<u64>,
}

/// What a process wrote, by where.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    pub stdout: u64,
    pub stderr: u64,
    pub terminal: u64,
}

#[derive(Serialize, Default)]
struct Line<'a> {
    /// Milliseconds since the epoch.
    time: u64,
    level: &'a str,
    logger: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pty_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

impl Log {
    /// Of a pipe that does not wait.
    pub fn new(pipe: Option<OwnedFd>) -> Self {
        Self {
            pipe: pipe.map(File::from),
            lost: Cell::new(0),
        }
    }

    pub fn started(&self) {
        self.write(&Line {
            version: Some(VERSION),
            ..of_agent("info", "Agent started")
        });
    }

    pub fn initialised(&self) {
        self.write(&of_agent("debug", "Settings were applied"));
    }

    pub fn process_start(
        &self,
        pid: u32,
        user: &str,
        tag: Option<&str>,
        config: &ProcessConfig,
        limit: Option<Duration>,
    ) {
        let command = command_of(config);
        let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.write(&Line {
            event_type: Some("process_start"),
            pid: Some(pid),
            user: Some(cut(user, LOG_TEXT_BYTES)),
            tag: tag.map(|tag| cut(tag, LOG_TEXT_BYTES)),
            command: Some(&command),
            request_timeout_ms: limit.map(millis),
            ..of_process("info", "Process started")
        });
    }

    pub fn process_refused(&self, user: &str, config: &ProcessConfig, error: &str) {
        self.write(&Line {
            user: Some(cut(user, LOG_TEXT_BYTES)),
            command: Some(&command_of(config)),
            error: Some(cut(error, LOG_TEXT_BYTES)),
            ..of_process("error", "Process could not be started")
        });
    }

    pub fn process_end(&self, pid: u32, tag: Option<&str>, end: &EndEvent, written: Written) {
        self.write(&Line {
            event_type: Some("process_end"),
            pid: Some(pid),
            tag: tag.map(|tag| cut(tag, LOG_TEXT_BYTES)),
            process_result: Some(cut(&end.status, LOG_TEXT_BYTES)),
            stdout_bytes: Some(written.stdout),
            stderr_bytes: Some(written.stderr),
            pty_bytes: Some(written.terminal),
            ..of_process("info", "Process ended")
        });
    }

    fn write(&self, line: &Line<'_>) {
        let lost = self.lost.get();
        if lost > 0 {
            let said = self.put(&Line {
                lost: Some(lost),
                ..of_agent("warn", "Lines of the log are lost")
            });
            if said {
                self.lost.set(0);
            }
        }
        if !self.put(line) {
            self.lost.set(self.lost.get().saturating_add(1));
        }
    }

    /// Whether it is there, or nobody wants it.
    fn put(&self, line: &Line<'_>) -> bool {
        let Some(mut pipe) = self.pipe.as_ref() else {
            return true;
        };
        let Ok(mut text) = serde_json::to_vec(line) else {
            return false;
        };
        text.push(b'\n');
        text.len() <= LOG_LINE_BYTES && pipe.write(&text).is_ok_and(|count| count == text.len())
    }
}

fn of_agent<'a>(level: &'a str, message: &'a str) -> Line<'a> {
    line(level, "envd", message)
}

fn of_process<'a>(level: &'a str, message: &'a str) -> Line<'a> {
    line(level, "process", message)
}

fn line<'a>(level: &'a str, logger: &'a str, message: &'a str) -> Line<'a> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Line {
        time: since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }),
        level,
        logger,
        message,
        ..Line::default()
    }
}

/// The command and its arguments as far as they fit. No variables: they may be secrets.
fn command_of(config: &ProcessConfig) -> String {
    // A little more than fits, so that it shows when something is cut off.
    let enough = LOG_COMMAND_BYTES + 4;
    let mut text = config.cmd[..config.cmd.floor_char_boundary(enough)].to_owned();
    for argument in &config.args {
        if text.len() > LOG_COMMAND_BYTES {
            break;
        }
        text.push(' ');
        text.push_str(&argument[..argument.floor_char_boundary(enough)]);
    }
    let short = cut(&text, LOG_COMMAND_BYTES);
    match short.len() < text.len() {
        true => short.to_owned() + "…",
        false => text,
    }
}

/// The first bytes of a text, in whole characters. A control character is six bytes in a line and
/// counts so.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut left = bytes_max;
    let cost = |letter: char| match letter.is_ascii_control() {
        true => 6,
        false => letter
            .len_utf8()
            .max(1 + usize::from("\"\\".contains(letter))),
    };
    let end = text.char_indices().find(|(_, letter)| {
        let fits = cost(*letter) <= left;
        left = left.saturating_sub(cost(*letter));
        !fits
    });
    end.map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read};

    use rustix::io::ioctl_fionbio;

    use super::*;

    fn log() -> (Log, PipeReader) {
        let (reader, writer) = std::io::pipe().unwrap();
        ioctl_fionbio(&reader, true).unwrap();
        ioctl_fionbio(&writer, true).unwrap();
        (Log::new(Some(writer.into())), reader)
    }

    fn lines(mut reader: &PipeReader) -> Vec<serde_json::Value> {
        let mut text = String::new();
        // Nothing more for the moment is an error to this reader.
        let _ = reader.read_to_string(&mut text);
        let parse = |line| serde_json::from_str(line).unwrap();
        text.lines().map(parse).collect()
    }

    fn config(cmd: &str, args: &[&str]) -> ProcessConfig {
        ProcessConfig {
            cmd: cmd.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn the_longest_command_fits_a_line() {
        let (log, reader) = log();
        for letter in ["\u{1}", "\"", "ä", "x", "𝄞"] {
            let long = letter.repeat(100_000);
            let config = config(&long, &[&long, &long]);
            log.process_start(u32::MAX, &long, Some(&long), &config, Some(Duration::MAX));
            log.process_refused(&long, &config, &long);
            let lines = lines(&reader);
            assert_eq!(lines.len(), 2, "{letter:?}");
            for line in lines {
                let command = line["command"].as_str().unwrap();
                assert!(
                    command.starts_with(letter) && command.ends_with('…'),
                    "{command}"
                );
            }
        }
    }

    #[test]
    fn a_full_pipe_costs_lines_which_are_counted_and_no_time() {
        let (log, reader) = log();
        let config = config("/bin/echo", &["a", "b c"]);
        for pid in 0..10_000 {
            log.process_start(pid, "user", None, &config, None);
        }
        let first = lines(&reader);
        assert!(first.len() > 100 && first.len() < 10_000);
        assert_eq!(first[7]["command"], "/bin/echo a b c");
        log.started();
        let later = lines(&reader);
        assert_eq!(later[0]["lost"], 10_000 - first.len());
        assert_eq!(later[1]["message"], "Agent started");
        assert_eq!(later.len(), 2);
    }

    #[test]
    fn many_short_words_fit_a_line_too() {
        let (log, reader) = log();
        let words = ["\u{1}"; 5000];
        log.process_refused("user", &config("x", &words), "no");
        assert_eq!(lines(&reader).len(), 1);
    }

    #[test]
    fn short_texts_stay_whole() {
        assert_eq!(command_of(&config("ls", &["-l", "/x"])), "ls -l /x");
        assert_eq!(cut("äöü", 5), "äö");
    }
}
