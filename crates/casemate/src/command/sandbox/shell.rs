//! `casemate sandbox shell`: a terminal in a sandbox, in the place of ours.

use std::io::{self, IsTerminal, Stdin};
use std::process::ExitCode;

use anyhow::{Context, bail};
use casemate_client::Envd;
use casemate_client::envd::process::{
    Command, End, Event, Events, Input, Mode, Process, TerminalSize,
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};

use super::{envd, exit_code, pair, stdin};
use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// The sandbox's id.
    id: String,
    /// The Linux user to be [default: the template's].
    #[arg(long, short)]
    user: Option<String>,
    /// The folder to begin in [default: the template's].
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// An environment variable; may be given several times.
    #[arg(long = "env", short, value_name = "K=V", value_parser = pair)]
    env: Vec<(String, String)>,
    /// The shell to run.
    #[arg(long, default_value = "/bin/bash")]
    shell: String,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    if output.is_json() {
        bail!("a terminal has no answer in JSON: `casemate sandbox exec --json` has");
    }
    let terminal = io::stdin();
    if !terminal.is_terminal() {
        bail!("`shell` needs a terminal: use `casemate sandbox exec ID -- CMD` without one");
    }
    let mut envd = envd(server, &args.id).await?;
    if let Some(user) = args.user {
        envd = envd.as_user(user);
    }
    let command = Command {
        program: args.shell,
        args: vec!["-i".to_owned(), "-l".to_owned()],
        env: environment(args.env),
        working_dir: args.workdir,
        mode: Mode::Terminal(size(&terminal)?),
        ..Command::default()
    };
    let mut events = envd.process_start(command).await?;
    let process = Process::Pid(events.pid().await?);
    let raw = RawTerminal::enter(terminal)?;
    let end = tokio::select! {
        end = follow(events) => end,
        error = feed(&envd, &process) => Err(error),
        error = pass_resizes(&envd, &process) => Err(error),
    };
    // Before anything is said: a message in a raw terminal climbs down like a staircase.
    drop(raw);
    Ok(exit_code(&end?))
}

/// What a program needs to know to draw on this terminal. What the caller names wins.
fn environment(named: Vec<(String, String)>) -> Vec<(String, String)> {
    let term = std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".to_owned());
    let mut env = vec![
        ("TERM".to_owned(), term),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
    ];
    env.extend(named);
    env
}

fn size(terminal: &Stdin) -> anyhow::Result<TerminalSize> {
    let size = tcgetwinsize(terminal).context("cannot ask the terminal for its size")?;
    Ok(TerminalSize {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}

async fn follow(mut events: Events) -> anyhow::Result<End> {
    let mut stdout = tokio::io::stdout();
    let mut end = None;
    while let Some(event) = events.next().await? {
        match event {
            Event::Started { .. } => {}
            Event::Stdout(bytes) | Event::Stderr(bytes) | Event::Terminal(bytes) => {
                stdout
                    .write_all(&bytes)
                    .await
                    .context("cannot write to the terminal")?;
                stdout
                    .flush()
                    .await
                    .context("cannot write to the terminal")?;
            }
            Event::Ended(ended) => end = Some(ended),
        }
    }
    end.context("the shell's end was not told")
}

/// Gives what is typed to the shell. Answers only when that fails.
async fn feed(envd: &Envd, process: &Process) -> anyhow::Error {
    match try_feed(envd, process).await {
        // Our terminal went away, or the shell did and its end is on the way.
        Ok(()) => std::future::pending().await,
        Err(error) => error.context("cannot give what is typed to the shell"),
    }
}

async fn try_feed(envd: &Envd, process: &Process) -> anyhow::Result<()> {
    let mut pieces = stdin::read()?;
    let (input, call) = envd.process_stream_input(process.clone()).await?;
    let write = async move {
        while let Some(piece) = pieces.recv().await {
            if !input.send(Input::Terminal(piece)).await? {
                break;
            }
        }
        anyhow::Ok(())
    };
    // A call that ends by itself found no shell any more: its end, not this, is what is told.
    let (_, written) = tokio::join!(call, write);
    written
}

/// Makes the shell's terminal as large as ours whenever ours changes. Answers only on failure.
async fn pass_resizes(envd: &Envd, process: &Process) -> anyhow::Error {
    match try_pass_resizes(envd, process).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn try_pass_resizes(
    envd: &Envd,
    process: &Process,
) -> anyhow::Result<std::convert::Infallible> {
    let mut resized = signal(SignalKind::window_change())?;
    // Once at the beginning: it may have changed while the shell was started.
    loop {
        let size = size(&io::stdin())?;
        match envd.process_resize(process.clone(), size).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        resized.recv().await;
    }
}

/// Our terminal, handing on every key as it is, until this is dropped.
struct RawTerminal {
    terminal: Stdin,
    before: Termios,
}

impl RawTerminal {
    fn enter(terminal: Stdin) -> anyhow::Result<Self> {
        let before = tcgetattr(&terminal).context("cannot ask the terminal for its mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        // What was typed ahead is kept: it is meant for the shell.
        tcsetattr(&terminal, OptionalActions::Drain, &raw)
            .context("cannot make the terminal raw")?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before) {
            eprintln!("casemate: cannot set the terminal back ({error}); `reset` does\r");
        }
    }
}
