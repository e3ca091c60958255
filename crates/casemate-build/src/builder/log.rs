//! What a build tells whoever waits for it.

use std::fmt::Display;
use std::sync::Arc;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Takes the lines of one build, in order. Must not block.
pub trait BuildLog: Send + Sync {
    /// `step` as in [`casemate_types::BuildFailure::step`].
    fn line(&self, level: Level, step: Option<&str>, message: String);
}

/// The lines of one phase.
#[derive(Clone)]
pub(super) struct Phase {
    log: Arc<dyn BuildLog>,
    step: String,
    /// In front of every line, without its brackets.
    prefix: String,
    /// Output of commands.
    level: Level,
}

/// A line of output is cut behind so many bytes: the rest is no line that anybody reads.
const LINE_BYTES_MAX: usize = 8 * 1024;

impl Phase {
    pub(super) fn new(log: &Arc<dyn BuildLog>, step: &str, prefix: String) -> Self {
        Self {
            log: Arc::clone(log),
            step: step.into(),
            prefix,
            level: Level::Info,
        }
    }

    /// The same with output of commands at this level.
    pub(super) fn with_output(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    pub(super) fn step(&self) -> &str {
        &self.step
    }

    /// The line that names the phase.
    pub(super) fn begin(&self, is_cached: bool, text: impl Display, key: impl Display) {
        let cached = if is_cached { "CACHED " } else { "" };
        let prefix = &self.prefix;
        self.tell(Level::Info, format!("{cached}[{prefix}] {text} [{key}]"));
    }

    pub(super) fn say(&self, level: Level, text: impl Display) {
        self.tell(level, format!("[{}] {text}", self.prefix));
    }

    fn tell(&self, level: Level, message: String) {
        self.log.line(level, Some(&self.step), message);
    }

    /// Gathers the lines of one stream of a command.
    pub(super) fn output(&self, stream: &'static str) -> Lines {
        Lines {
            phase: self.clone(),
            stream,
            pending: Vec::new(),
            is_cut: false,
        }
    }
}

/// Bytes on their way to be lines.
pub(super) struct Lines {
    phase: Phase,
    stream: &'static str,
    pending: Vec<u8>,
    is_cut: bool,
}

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = LINE_BYTES_MAX - self.pending.len();
            self.is_cut |= text.len() > room;
            self.pending
                .extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.end();
            }
        }
    }

    /// The stream is over, or its line is.
    pub(super) fn end(&mut self) {
        let text = String::from_utf8_lossy(&self.pending);
        let more = if self.is_cut { " …" } else { "" };
        let text = text.trim();
        if !text.is_empty() {
            let line = format!("[{}]: {text}{more}", self.stream);
            self.phase.say(self.phase.level, line);
        }
        self.pending.clear();
        self.is_cut = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl BuildLog for Kept {
        fn line(&self, level: Level, step: Option<&str>, message: String) {
            let line = format!("{level:?} {} {message}", step.unwrap_or("-"));
            self.0.lock().unwrap().push(line);
        }
    }

    #[test]
    fn output_becomes_trimmed_lines_of_bounded_length() {
        let kept = Arc::new(Kept::default());
        let log: Arc<dyn BuildLog> = kept.clone();
        let phase = Phase::new(&log, "2", "builder 2/3".into());
        let mut lines = phase.output("stdout");
        lines.push(b"one\n\n  \r\ntw");
        lines.push(b"o\r\n\xffthree");
        lines.end();
        lines.push(&vec![b'x'; 3 * LINE_BYTES_MAX]);
        lines.push(b"\nlast");
        lines.end();
        let long = format!(
            "Info 2 [builder 2/3] [stdout]: {} …",
            "x".repeat(LINE_BYTES_MAX)
        );
        let expected = [
            "Info 2 [builder 2/3] [stdout]: one",
            "Info 2 [builder 2/3] [stdout]: two",
            "Info 2 [builder 2/3] [stdout]: \u{fffd}three",
            &long,
            "Info 2 [builder 2/3] [stdout]: last",
        ];
        assert_eq!(*kept.0.lock().unwrap(), expected);
    }
}
