//! A build's log on its way to the history: in order, in batches, bounded.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use casemate_build::builder::{BuildLog, Job, Level};
use casemate_history::LogLevel;
use casemate_history::build_logs::{BYTES_MAX, BuildLogEntry, LINES_MAX, MESSAGE_BYTES_MAX};
use casemate_types::{TeamId, Timestamp, chain};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Control;

/// Lines are gathered this long: clients ask every 200 ms.
const GATHER: Duration = Duration::from_millis(50);
/// Lines written at once.
const BATCH: usize = 1000;
/// Lines that are kept for saying how a build went and why it failed.
const SPARE: u64 = 100;

/// The log of one build.
pub(super) struct Written {
    /// `None` once it is finished.
    open: Mutex<Option<Open>>,
    writing: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

struct Open {
    sender: mpsc::UnboundedSender<BuildLogEntry>,
    lines: u64,
    bytes: u64,
    /// Something did not go in.
    is_full: bool,
}

impl Open {
    fn put(&mut self, line: BuildLogEntry) {
        let bytes = line.message.len() as u64;
        // What is of no step says how the build went as a whole.
        let is_short = line.level == LogLevel::Error || line.step.is_none();
        let spare = if is_short { 0 } else { SPARE };
        let fits = self.lines + spare < LINES_MAX
            && self.bytes + bytes + spare * MESSAGE_BYTES_MAX as u64 <= BYTES_MAX;
        let line = match fits {
            true => line,
            false if self.is_full => return,
            false => {
                self.is_full = true;
                BuildLogEntry {
                    level: LogLevel::Warn,
                    message: "the log is full: further lines are not kept".into(),
                    ..line
                }
            }
        };
        self.lines += 1;
        self.bytes += line.message.len() as u64;
        // Whoever writes it ends before this does only when it panicked.
        let _ = self.sender.send(line);
    }
}

impl Written {
    pub(super) fn begin(control: &Arc<Control>, job: &Job) -> Arc<Self> {
        let (sender, waiting) = mpsc::unbounded_channel();
        let (team, build) = (job.team.clone(), job.build.to_string());
        let writing = tokio::spawn(write(Arc::clone(control), team, build, waiting));
        let open = Open {
            sender,
            lines: 0,
            bytes: 0,
            is_full: false,
        };
        Arc::new(Self {
            open: Mutex::new(Some(open)),
            writing: tokio::sync::Mutex::new(Some(writing)),
        })
    }

    /// Returns when all of it is written: whoever sees the end of the build then sees its whole log.
    pub(super) async fn finish(&self) {
        drop(self.open().take());
        if let Some(writing) = self.writing.lock().await.take()
            && let Err(error) = writing.await
        {
            tracing::error!(%error, "the log of a build was cut off");
        }
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().expect("no holder of this lock panics")
    }
}

impl BuildLog for Written {
    fn line(&self, level: Level, step: Option<&str>, mut message: String) {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        let line = BuildLogEntry {
            at: Timestamp::now(),
            level: kept(level),
            step: step.map(str::to_owned),
            message,
        };
        if let Some(open) = &mut *self.open() {
            open.put(line);
        }
    }
}

fn kept(level: Level) -> LogLevel {
    match level {
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
        Level::Error => LogLevel::Error,
    }
}

async fn write(
    control: Arc<Control>,
    team: TeamId,
    build: String,
    mut waiting: mpsc::UnboundedReceiver<BuildLogEntry>,
) {
    let mut lines = Vec::new();
    while waiting.recv_many(&mut lines, BATCH).await > 0 {
        let appended = control.history.build_logs_append(&team, &build, &lines);
        if let Err(error) = appended.await {
            tracing::warn!(
                build.id = build,
                error = chain(&error),
                "lines of a build's log are lost"
            );
        }
        lines.clear();
        if !waiting.is_closed() {
            tokio::time::sleep(GATHER).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_says_so_once_and_still_takes_errors() {
        let (sender, mut kept) = mpsc::unbounded_channel();
        let mut open = Open {
            sender,
            lines: LINES_MAX - SPARE - 1,
            bytes: 0,
            is_full: false,
        };
        let line = |level, message: &str| BuildLogEntry {
            at: Timestamp::UNIX_EPOCH,
            level,
            step: Some("1".into()),
            message: message.into(),
        };
        for number in 0..5 {
            open.put(line(LogLevel::Info, &format!("line {number}")));
        }
        open.put(line(LogLevel::Error, "why"));
        let mut seen = Vec::new();
        while let Ok(line) = kept.try_recv() {
            seen.push(line.message);
        }
        let full = "the log is full: further lines are not kept";
        assert_eq!(seen, ["line 0", full, "why"]);
    }
}
