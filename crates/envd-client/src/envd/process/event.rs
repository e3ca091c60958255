//! What a process says, from its start to its end.

use bytes::Bytes;
use envd_wire::process::process_event::data_event::Output;
use envd_wire::process::process_event::{self, EndEvent};
use envd_wire::process::{ConnectResponse, ProcessEvent, StartResponse};

use crate::envd::stream::MessageStream;
use crate::error::EnvdError;

/// One thing that happened to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Started { pid: u32 },
    Stdout(Bytes),
    Stderr(Bytes),
    Terminal(Bytes),
    Ended(End),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// -1 when a signal ended it.
    pub exit_code: i32,
    /// It ended by itself, not by a signal.
    pub exited: bool,
    /// In words: `exit status 1`, `signal: killed`.
    pub status: String,
    pub error: Option<String>,
}

impl End {
    /// The number of the signal that ended it; `None` when it ended by itself, or by a signal whose
    /// name is not known. The agent tells names only.
    #[must_use]
    pub fn signal(&self) -> Option<u8> {
        let name = self.status.strip_prefix("signal: ")?;
        let name = name.strip_suffix(" (core dumped)").unwrap_or(name);
        SIGNALS
            .iter()
            .find_map(|(number, known)| (*known == name).then_some(*number))
    }
}

const SIGNALS: [(u8, &str); 15] = [
    (1, "hangup"),
    (2, "interrupt"),
    (3, "quit"),
    (4, "illegal instruction"),
    (5, "trace/breakpoint trap"),
    (6, "aborted"),
    (7, "bus error"),
    (8, "floating point exception"),
    (9, "killed"),
    (10, "user defined signal 1"),
    (11, "segmentation fault"),
    (12, "user defined signal 2"),
    (13, "broken pipe"),
    (14, "alarm clock"),
    (15, "terminated"),
];

impl From<EndEvent> for End {
    fn from(end: EndEvent) -> Self {
        Self {
            exit_code: end.exit_code,
            exited: end.exited,
            status: end.status,
            error: end.error,
        }
    }
}

/// The events of one process. Dropping them leaves the process running.
#[derive(Debug)]
pub struct Events {
    source: Source,
    seen_end: bool,
}

#[derive(Debug)]
enum Source {
    Started(MessageStream<StartResponse>),
    Connected(MessageStream<ConnectResponse>),
}

impl Source {
    const fn method(&self) -> &'static str {
        match self {
            Self::Started(_) => "Start",
            Self::Connected(_) => "Connect",
        }
    }

    /// Cancel safe, as the streams are.
    async fn next(&mut self) -> Result<Option<Option<ProcessEvent>>, EnvdError> {
        Ok(match self {
            Self::Started(stream) => stream
                .next()
                .await?
                .map(|answer| answer.event.into_option()),
            Self::Connected(stream) => stream
                .next()
                .await?
                .map(|answer| answer.event.into_option()),
        })
    }
}

impl Events {
    pub(super) fn started(stream: MessageStream<StartResponse>) -> Self {
        Self {
            source: Source::Started(stream),
            seen_end: false,
        }
    }

    pub(super) fn connected(stream: MessageStream<ConnectResponse>) -> Self {
        Self {
            source: Source::Connected(stream),
            seen_end: false,
        }
    }

    /// The next event; `None` after [`Event::Ended`]. A stream that ends without it is an error: the
    /// sandbox or the agent went away.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Event>, EnvdError> {
        let method = self.source.method();
        while let Some(event) = self.source.next().await? {
            // A kind of event that this client does not know yet is passed over, as keep-alives are.
            if let Some(event) = event.and_then(|event| event.event).and_then(read) {
                self.seen_end |= matches!(event, Event::Ended(_));
                return Ok(Some(event));
            }
        }
        if self.seen_end {
            Ok(None)
        } else {
            Err(EnvdError::Stream {
                method,
                fault: "the process did not end before it",
            })
        }
    }

    /// The process's pid, which is the first thing that every stream says.
    pub async fn pid(&mut self) -> Result<u32, EnvdError> {
        let method = self.source.method();
        match self.next().await? {
            Some(Event::Started { pid }) => Ok(pid),
            _ => Err(EnvdError::Stream {
                method,
                fault: "it did not begin with the process's start",
            }),
        }
    }

    /// Reads to the end, collecting output, at most `bytes_max` of each kind; the rest is dropped.
    pub async fn collect(mut self, bytes_max: usize) -> Result<Finished, EnvdError> {
        let method = self.source.method();
        let mut finished: Option<End> = None;
        let mut output = Collected::default();
        while let Some(event) = self.next().await? {
            match event {
                Event::Started { .. } => {}
                Event::Stdout(bytes) | Event::Terminal(bytes) => {
                    append(&mut output.stdout, &bytes, bytes_max);
                }
                Event::Stderr(bytes) => append(&mut output.stderr, &bytes, bytes_max),
                Event::Ended(end) => finished = Some(end),
            }
        }
        let no_end = EnvdError::Stream {
            method,
            fault: "the process did not end before it",
        };
        let end = finished.ok_or(no_end)?;
        Ok(Finished {
            end,
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

#[derive(Default)]
struct Collected {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// A process that has ended, with what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub end: End,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

fn append(to: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    let room = bytes_max.saturating_sub(to.len());
    to.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn read(event: process_event::Event) -> Option<Event> {
    match event {
        process_event::Event::Start(start) => Some(Event::Started { pid: start.pid }),
        process_event::Event::Data(data) => Some(match data.output? {
            Output::Stdout(bytes) => Event::Stdout(bytes),
            Output::Stderr(bytes) => Event::Stderr(bytes),
            Output::Pty(bytes) => Event::Terminal(bytes),
        }),
        process_event::Event::End(end) => Some(Event::Ended(End::from(*end))),
        process_event::Event::Keepalive(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: &str, expected: Option<u8>) {
        let end = End {
            exit_code: -1,
            exited: false,
            status: status.to_owned(),
            error: None,
        };
        assert_eq!(end.signal(), expected);
    }

    #[test]
    fn signals_are_known_by_name() {
        check("signal: killed", Some(9));
        check("signal: segmentation fault (core dumped)", Some(11));
        check("signal: stranger", None);
        check("exit status 9", None);
    }
}
