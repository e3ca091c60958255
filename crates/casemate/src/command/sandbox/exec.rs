//! `casemate sandbox exec`: one command, its output here, its exit code ours.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use casemate_client::Envd;
use casemate_client::envd::process::{Command, End, Event, Events, Input, Kill, Mode, Process};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{envd, exit_code, pair, stdin};
use crate::command::server::Server;
use crate::output::Output;

/// The most output of each kind that `--json` answers. The rest is read and dropped.
const JSON_OUTPUT_BYTES_MAX: usize = 16 << 20;

#[derive(clap::Args)]
pub struct Args {
    /// The sandbox's id.
    id: String,
    /// The Linux user to run as [default: the template's].
    #[arg(long, short)]
    user: Option<String>,
    /// The folder to run in [default: the template's].
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// An environment variable; may be given several times.
    #[arg(long = "env", short, value_name = "K=V", value_parser = pair)]
    env: Vec<(String, String)>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let mut envd = envd(server, &args.id).await?;
    if let Some(user) = args.user {
        envd = envd.as_user(user);
    }
    // Before the command starts: a Ctrl-C from now on is the command's.
    let signals = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let mut command = args.command.into_iter();
    // At a terminal nobody has said that this is the command's input: `shell` is for that.
    let piped = !std::io::stdin().is_terminal();
    let command = Command {
        program: command.next().context("no command was given")?,
        args: command.collect(),
        env: args.env,
        working_dir: args.workdir,
        mode: if piped {
            Mode::Interactive
        } else {
            Mode::Output
        },
        ..Command::default()
    };
    let mut events = envd.process_start(command).await?;
    let process = Process::Pid(events.pid().await?);
    let end = tokio::select! {
        end = follow(events, output) => match end {
            Ok(end) => end,
            Err(error) => {
                // As a shell's pipe would: what nobody reads any more need not run.
                let _ = envd.process_send_signal(process, Kill::Kill).await;
                return Err(error);
            }
        },
        error = feed(&envd, &process, piped) => return Err(error),
        error = pass_signals(&envd, &process, signals) => return Err(error),
    };
    Ok(exit_code(&end))
}

/// Shows what the command writes until it ends.
async fn follow(mut events: Events, output: &Output) -> anyhow::Result<End> {
    if output.is_json() {
        let finished = events.collect(JSON_OUTPUT_BYTES_MAX).await?;
        let value = json!({
            "stdout": String::from_utf8_lossy(&finished.stdout),
            "stderr": String::from_utf8_lossy(&finished.stderr),
            "exitCode": finished.end.exit_code,
            "status": finished.end.status,
        });
        output.value(&value, String::new);
        return Ok(finished.end);
    }
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut end = None;
    while let Some(event) = events.next().await? {
        match event {
            Event::Started { .. } => {}
            Event::Stdout(bytes) | Event::Terminal(bytes) => {
                stdout
                    .write_all(&bytes)
                    .await
                    .context("cannot write the command's output")?;
                // Each piece at once: who waits for a prompt waits for this.
                stdout
                    .flush()
                    .await
                    .context("cannot write the command's output")?;
            }
            Event::Stderr(bytes) => {
                stderr
                    .write_all(&bytes)
                    .await
                    .context("cannot write the command's errors")?;
                stderr
                    .flush()
                    .await
                    .context("cannot write the command's errors")?;
            }
            Event::Ended(ended) => end = Some(ended),
        }
    }
    end.context("the command's end was not told")
}

/// Gives our input to the command, and its end. Answers only when that fails; a command that does
/// not read, or has ended, is no failure.
async fn feed(envd: &Envd, process: &Process, piped: bool) -> anyhow::Error {
    if piped && let Err(error) = try_feed(envd, process).await {
        return error.context("cannot give standard input to the command");
    }
    std::future::pending().await
}

async fn try_feed(envd: &Envd, process: &Process) -> anyhow::Result<()> {
    let mut pieces = stdin::read()?;
    let (input, call) = envd.process_stream_input(process.clone()).await?;
    let write = async move {
        while let Some(piece) = pieces.recv().await {
            if !input.send(Input::Stdin(piece)).await? {
                break;
            }
        }
        anyhow::Ok(())
    };
    let (called, written) = tokio::join!(call, write);
    written?;
    if called.is_err() {
        // The command closed its input or is gone; its end and exit code tell all there is to tell.
        return Ok(());
    }
    match envd.process_close_stdin(process.clone()).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => Ok(other?),
    }
}

/// Ends the command when we are told to end: first kindly, then at once. Answers only on failure.
async fn pass_signals(
    envd: &Envd,
    process: &Process,
    (mut interrupt, mut terminate): (Signal, Signal),
) -> anyhow::Error {
    for kill in [Kill::Terminate, Kill::Kill] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        match envd.process_send_signal(process.clone(), kill).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return anyhow::Error::new(error).context("cannot end the command"),
        }
    }
    interrupt.recv().await;
    anyhow::anyhow!("gave up on a command that does not end")
}
