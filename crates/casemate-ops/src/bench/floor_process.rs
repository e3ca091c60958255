//! The process that serves floors, from outside.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::error::BenchError;
use super::floor::{Answer, Request};

/// How long one floor may take. The slowest one takes less than a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Ends when it is dropped.
pub(super) struct FloorProcess {
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Killed with us; named only to live as long.
    _child: Child,
}

impl FloorProcess {
    pub(super) async fn start(program: &Path, args: &[String]) -> Result<Self, BenchError> {
        let fault = |source| BenchError::Floor {
            action: "start its process",
            source,
        };
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(fault)?;
        let no_pipe = || fault(std::io::ErrorKind::BrokenPipe.into());
        let requests = child.stdin.take().ok_or_else(no_pipe)?;
        let answers = child.stdout.take().ok_or_else(no_pipe)?;
        Ok(Self {
            requests,
            answers: BufReader::new(answers).lines(),
            _child: child,
        })
    }

    /// Measures one floor now.
    pub(super) async fn measure(&mut self, request: Request) -> Result<Duration, BenchError> {
        let mut line = serde_json::to_vec(&request).expect("a request is plain data");
        line.push(b'\n');
        let exchange = async {
            self.requests.write_all(&line).await?;
            self.answers.next_line().await
        };
        let fault = |source| BenchError::Floor {
            action: "ask its process",
            source,
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|late| fault(late.into()))?
            .map_err(fault)?
            // What went wrong stands on standard error, which is ours.
            .ok_or_else(|| BenchError::FloorRefused {
                reason: "its process ended".to_owned(),
            })?;
        match serde_json::from_str(&answer) {
            Ok(Answer::Microseconds(took)) => Ok(Duration::from_micros(took)),
            Ok(Answer::Failed(reason)) => Err(BenchError::FloorRefused { reason }),
            Err(error) => Err(BenchError::FloorRefused {
                reason: error.to_string(),
            }),
        }
    }
}
