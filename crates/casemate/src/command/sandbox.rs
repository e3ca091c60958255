//! `casemate sandbox`: create sandboxes and work in them, through the same API as the SDKs.

mod create;
mod exec;
mod fork;
mod kill;
mod list;
mod logs;
mod metrics;
mod pause;
mod resume;
mod shell;
mod snapshot;
mod stdin;

use std::process::ExitCode;

use anyhow::{Context, ensure};
use casemate_client::Envd;
use casemate_client::api::{Kept, State};
use casemate_client::envd::process::End;

use super::server::{Server, ServerArgs};
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Create a sandbox and say its id.
    Create(create::Args),
    /// List sandboxes.
    List(list::Args),
    /// Run a command in a sandbox; ends with the command's exit code.
    Exec(exec::Args),
    /// Open a terminal in a sandbox.
    #[command(visible_alias = "connect")]
    Shell(shell::Args),
    /// Show what happened to a sandbox, oldest first; also after its end.
    Logs(logs::Args),
    /// Show what a sandbox used, every few seconds; also after its end.
    Metrics(metrics::Args),
    /// Let a sandbox stand still; it uses no processor and has no deadline until it goes on.
    Pause(pause::Args),
    /// Let a paused sandbox go on.
    Resume(resume::Args),
    /// Keep the files of sandboxes beyond them.
    Snapshot(snapshot::Args),
    /// Make sandboxes that begin with the files of a running one, and say their ids.
    Fork(fork::Args),
    /// End sandboxes.
    Kill(kill::Args),
}

pub async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let server = args.server.connect()?;
    match args.verb {
        Verb::Create(args) => create::run(args, &server, output).await,
        Verb::List(args) => list::run(args, &server, output).await,
        Verb::Exec(args) => exec::run(args, &server, output).await,
        Verb::Shell(args) => shell::run(args, &server, output).await,
        Verb::Logs(args) => logs::run(args, &server, output).await,
        Verb::Metrics(args) => metrics::run(args, &server, output).await,
        Verb::Pause(args) => pause::run(args, &server, output).await,
        Verb::Resume(args) => resume::run(args, &server, output).await,
        Verb::Snapshot(args) => snapshot::run(args, &server, output).await,
        Verb::Fork(args) => fork::run(args, &server, output).await,
        Verb::Kill(args) => kill::run(args, &server, output).await,
    }
}

/// The agent of a sandbox. One that sleeps is woken; the life of one that runs is not changed.
async fn envd(server: &Server, id: &str) -> anyhow::Result<Envd> {
    let detail = server.api.sandbox_by_id(id).await?;
    let detail = detail
        .with_context(|| format!("there is no sandbox {id}: `casemate sandbox list` shows them"))?;
    let token = match detail.state {
        State::Running => detail.envd_access_token,
        State::Paused => {
            let connected = server.api.sandbox_connect(id, None, Kept::Memory).await?;
            connected.sandbox.envd_access_token
        }
    };
    Ok(server
        .api
        .envd(&server.edge, &detail.sandbox_id, token.as_deref())?)
}

/// An answer without anything in it says nothing of an id that nobody knows.
async fn must_be_known(server: &Server, id: &str) -> anyhow::Result<()> {
    if server.api.sandbox_by_id(id).await?.is_some() {
        return Ok(());
    }
    // What has ended is known by its log.
    let logged = server.api.sandbox_logs(id, "debug", None, 1).await?;
    ensure!(!logged.is_empty(), "nothing is known of a sandbox {id}");
    Ok(())
}

/// A `NAME=VALUE` of the command line.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it must be NAME=VALUE".to_owned()),
    }
}

/// How this program ends where a command in a sandbox ended so, as a shell would put it.
fn exit_code(end: &End) -> ExitCode {
    match end.signal() {
        Some(signal) => ExitCode::from(128_u8.saturating_add(signal)),
        // Beyond a byte, or negative without a signal that we know: failed all the same.
        None => ExitCode::from(u8::try_from(end.exit_code).unwrap_or(u8::MAX)),
    }
}
