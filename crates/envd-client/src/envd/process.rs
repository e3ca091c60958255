//! Processes in a sandbox: start, join, feed, signal, resize, list.

mod event;
mod input;
mod run;

use std::time::Duration;

use envd_wire::MessageField;
use envd_wire::process::process_selector::Selector;
use envd_wire::process::{
    CloseStdinRequest, CloseStdinResponse, ConnectRequest, ConnectResponse, ListRequest,
    ListResponse, PTY, ProcessConfig, ProcessInfo, ProcessSelector, SendInputRequest,
    SendInputResponse, SendSignalRequest, SendSignalResponse, Signal, StartRequest, StartResponse,
    UpdateRequest, UpdateResponse, pty,
};

pub use event::{End, Event, Events};
pub use input::{Input, InputSender};
pub use run::Run;

use super::Envd;
use crate::error::EnvdError;

/// Which process is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Process {
    Pid(u32),
    Tag(String),
}

/// What to start.
#[derive(Debug, Clone, Default)]
pub struct Command {
    pub program: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// None: the sandbox's default.
    pub working_dir: Option<String>,
    pub tag: Option<String>,
    pub mode: Mode,
    /// How long it may run; then the agent kills it. None: as long as the sandbox.
    pub limit: Option<Duration>,
}

impl Command {
    /// A line for a login shell: `/bin/bash -l -c LINE`.
    pub fn of_login_shell(line: impl Into<String>) -> Self {
        Self {
            program: "/bin/bash".to_owned(),
            args: vec!["-l".to_owned(), "-c".to_owned(), line.into()],
            ..Self::default()
        }
    }
}

/// What a process's standard streams are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Pipes for output, nothing to read.
    #[default]
    Output,
    /// Pipes for output and input.
    Interactive,
    /// A terminal of this size.
    Terminal(TerminalSize),
}

/// In characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub columns: u16,
    pub rows: u16,
}

/// The two signals that the agent sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    Terminate,
    Kill,
}

impl Envd {
    /// Starts a process and follows it. It runs on when the events are dropped.
    pub async fn process_start(&self, command: Command) -> Result<Events, EnvdError> {
        let limit = command.limit;
        let request = StartRequest::from(command);
        let stream = self
            .server_stream::<_, StartResponse>("/process.Process/Start", &request, limit)
            .await?;
        Ok(Events::started(stream))
    }

    /// Follows a process that runs already: output from now on, and its end.
    pub async fn process_connect(
        &self,
        process: Process,
        limit: Option<Duration>,
    ) -> Result<Events, EnvdError> {
        let request = ConnectRequest {
            process: MessageField::some(process.into()),
        };
        let stream = self
            .server_stream::<_, ConnectResponse>("/process.Process/Connect", &request, limit)
            .await?;
        Ok(Events::connected(stream))
    }

    /// Writes to a process; answers when all of it is written.
    pub async fn process_send_input(
        &self,
        process: Process,
        input: Input,
    ) -> Result<(), EnvdError> {
        let request = SendInputRequest {
            process: MessageField::some(process.into()),
            input: MessageField::some(input.into()),
        };
        let SendInputResponse {} = self.unary("/process.Process/SendInput", &request).await?;
        Ok(())
    }

    /// Ends a process's standard input. A terminal has no end: send it `0x04`.
    pub async fn process_close_stdin(&self, process: Process) -> Result<(), EnvdError> {
        let request = CloseStdinRequest {
            process: MessageField::some(process.into()),
        };
        let CloseStdinResponse {} = self.unary("/process.Process/CloseStdin", &request).await?;
        Ok(())
    }

    pub async fn process_send_signal(&self, process: Process, kill: Kill) -> Result<(), EnvdError> {
        let signal = match kill {
            Kill::Terminate => Signal::SIGNAL_SIGTERM,
            Kill::Kill => Signal::SIGNAL_SIGKILL,
        };
        let request = SendSignalRequest {
            process: MessageField::some(process.into()),
            signal: signal.into(),
        };
        let SendSignalResponse {} = self.unary("/process.Process/SendSignal", &request).await?;
        Ok(())
    }

    pub async fn process_resize(
        &self,
        process: Process,
        size: TerminalSize,
    ) -> Result<(), EnvdError> {
        let request = UpdateRequest {
            process: MessageField::some(process.into()),
            pty: MessageField::some(size.into()),
        };
        let UpdateResponse {} = self.unary("/process.Process/Update", &request).await?;
        Ok(())
    }

    /// The processes that run now and were started through the agent.
    pub async fn process_list(&self) -> Result<Vec<ProcessInfo>, EnvdError> {
        let answer: ListResponse = self.unary("/process.Process/List", &ListRequest {}).await?;
        Ok(answer.processes)
    }
}

impl From<Command> for StartRequest {
    fn from(command: Command) -> Self {
        let (pty, stdin) = match command.mode {
            Mode::Output => (MessageField::none(), Some(false)),
            Mode::Interactive => (MessageField::none(), Some(true)),
            Mode::Terminal(size) => (MessageField::some(size.into()), None),
        };
        Self {
            process: MessageField::some(ProcessConfig {
                cmd: command.program,
                args: command.args,
                envs: command.env.into_iter().collect(),
                cwd: command.working_dir,
            }),
            pty,
            tag: command.tag,
            stdin,
        }
    }
}

impl From<Process> for ProcessSelector {
    fn from(process: Process) -> Self {
        let selector = match process {
            Process::Pid(pid) => Selector::Pid(pid),
            Process::Tag(tag) => Selector::Tag(tag),
        };
        Self {
            selector: Some(selector),
        }
    }
}

impl From<TerminalSize> for PTY {
    fn from(size: TerminalSize) -> Self {
        let size = pty::Size {
            cols: size.columns.into(),
            rows: size.rows.into(),
        };
        Self {
            size: MessageField::some(size),
        }
    }
}
