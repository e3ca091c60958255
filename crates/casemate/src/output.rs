//! What the program says: results on standard output, words on standard error.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use serde::Serialize;

use crate::command::table::clean;

/// How to answer. `--json` gives one JSON value (or one a line) on standard output and nothing else
/// there; notes and errors go to standard error either way.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
    /// Words are events of the log, for whoever reads standard error as JSON.
    logs: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, logs: false }
    }

    /// The same for a program that logs, whose standard error must be nothing but its log.
    pub fn into_log(self) -> Self {
        Self { logs: true, ..self }
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A result: as JSON, or in words.
    pub fn value<T: Serialize>(&self, value: &T, words: impl FnOnce() -> String) {
        if self.json {
            let json = serde_json::to_string(value).expect("results are plain values");
            self.line(&json);
        } else {
            self.line(&words());
        }
    }

    /// One line on standard output.
    pub fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Whoever closed our output does not want to read on.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// One line of explanation on standard error.
    pub fn note(&self, text: &str) {
        if self.logs {
            tracing::info!("{text}");
            return;
        }
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Why the command failed: with `--json` as `{"error": …}` on standard error.
    pub fn error(&self, error: &anyhow::Error) {
        if self.logs {
            tracing::error!("{error:#}");
        } else if self.json {
            self.note(&serde_json::json!({"error": format!("{error:#}")}).to_string());
        } else {
            self.note(&format!("casemate: {}", harmless(&format!("{error:#}"))));
        }
    }

    /// Progress of long work: a line that renews itself on a terminal, plain lines for each stage
    /// elsewhere.
    pub fn progress(&self, what: &'static str) -> ProgressLine {
        ProgressLine {
            what,
            terminal: std::io::stderr().is_terminal() && !self.logs,
            logs: self.logs,
            stage: Mutex::default(),
        }
    }
}

/// A text of several lines that may hold names out of a sandbox, without what acts on a terminal.
fn harmless(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// See [`Output::progress`]. Dropped, it is finished: what fails must not be told on its line.
pub struct ProgressLine {
    what: &'static str,
    terminal: bool,
    logs: bool,
    stage: Mutex<(u8, String)>,
}

/// Columns that a renewed line may take.
const WIDTH: usize = 100;

impl ProgressLine {
    /// Ends the renewed line, once.
    pub fn finish(&self) {
        let shown = std::mem::take(&mut *self.lock());
        if self.terminal && !shown.1.is_empty() {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u8, String)> {
        self.stage.lock().expect("no holder of this lock panics")
    }

    fn renew(&self, detail: &str) {
        let (percent, stage) = &*self.lock();
        let text = format!("{} {percent:>3}% {stage} {detail}", self.what);
        let shown: String = text
            .chars()
            .filter(|c| !c.is_control())
            .take(WIDTH)
            .collect();
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K{shown}");
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.finish();
    }
}

impl casemate_build::Progress for ProgressLine {
    fn step(&self, percent: u8, stage: &str) {
        *self.lock() = (percent, stage.to_owned());
        if self.terminal {
            self.renew("");
        } else if self.logs {
            tracing::info!(percent, stage, "{}: {stage}", self.what);
        } else {
            let _ = writeln!(
                std::io::stderr().lock(),
                "{} {percent:>3}% {stage}",
                self.what
            );
        }
    }

    fn line(&self, text: &str) {
        if self.terminal {
            self.renew(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_does_not_act_on_a_terminal() {
        assert_eq!(harmless("'a\x1b]0;x\x07'\nis\r é"), "'a?]0;x?'\nis? é");
    }
}
