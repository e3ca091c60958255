//! A build's log on its way to the history: in order, in batches, bounded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_build::builder::{BuildLog, Job, Level};
use casemate_history::BuildLine;
use casemate_types::{TeamId, Timestamp, chain};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::level;
use crate::Control;

/// Lines are gathered this long: clients ask every 200 ms.
const GATHER: Duration = Duration::from_millis(50);
/// Of one build; what comes behind them is not kept.
const LINES_MAX: usize = 100_000;
const BYTES_MAX: usize = 32 << 20;
/// Of one line.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Lines written at once.
const BATCH: usize = 1000;

/// The log of one build.
pub(super) struct Written {
    /// Gone once it is finished.
    lines: Mutex<Option<mpsc::UnboundedSender<BuildLine>>>,
    count: AtomicUsize,
    bytes: AtomicUsize,
    writing: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Written {
    pub(super) fn begin(control: &Arc<Control>, job: &Job) -> Arc<Self> {
        let (lines, waiting) = mpsc::unbounded_channel();
        let (team, build) = (job.team.clone(), job.build.to_string());
        let writing = tokio::spawn(write(Arc::clone(control), team, build, waiting));
        Arc::new(Self {
            lines: Mutex::new(Some(lines)),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            writing: tokio::sync::Mutex::new(Some(writing)),
        })
    }

    /// Returns when all of it is written: whoever sees the end of the build then sees its whole log.
    pub(super) async fn finish(&self) {
        drop(self.sender().take());
        if let Some(writing) = self.writing.lock().await.take()
            && let Err(error) = writing.await
        {
            tracing::error!(%error, "the log of a build was cut off");
        }
    }

    fn sender(&self) -> std::sync::MutexGuard<'_, Option<mpsc::UnboundedSender<BuildLine>>> {
        self.lines.lock().expect("no holder of this lock panics")
    }
}

impl BuildLog for Written {
    fn line(&self, at_level: Level, step: Option<&str>, mut message: String) {
        if message.len() > MESSAGE_BYTES_MAX {
            let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
            message.truncate(end);
        }
        let bytes = self.bytes.fetch_add(message.len(), Ordering::Relaxed);
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        // Errors say why it failed: there are few, and they are kept.
        let is_full = count >= LINES_MAX || bytes >= BYTES_MAX;
        let line = BuildLine {
            at: Timestamp::now(),
            level: level(at_level),
            step: step.map(str::to_owned),
            message,
        };
        let line = match is_full {
            false => line,
            true if at_level == Level::Error => line,
            true if count == LINES_MAX => BuildLine {
                message: "the log is full: further lines are not kept".into(),
                ..line
            },
            true => return,
        };
        if let Some(lines) = &*self.sender() {
            // It ends before this does only when it panicked.
            let _ = lines.send(line);
        }
    }
}

async fn write(
    control: Arc<Control>,
    team: TeamId,
    build: String,
    mut waiting: mpsc::UnboundedReceiver<BuildLine>,
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
