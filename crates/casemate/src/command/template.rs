//! `casemate template`: build templates and work with them, through the same API as the SDKs.

mod build;
mod delete;
mod export;
mod files;
mod follow;
mod gc;
mod import;
mod line;
mod list;
mod logs;
mod new;
mod set;

use std::process::ExitCode;

use super::server::ServerArgs;
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
    /// Build a template of a Dockerfile; ends when it is ready, or says why it is not.
    Build(build::Args),
    /// Make a template of an image in an OCI archive.
    Import(import::Args),
    /// Write a template as an OCI archive.
    Export(export::Args),
    /// List templates, the newest first.
    List,
    /// Show the log of a build, oldest line first.
    Logs(logs::Args),
    /// Publish a template or take it back, give its builds tags or take tags away.
    Set(set::Args),
    /// Give back the room of cached steps, uploads and old builds that nothing needs.
    Gc(gc::Args),
    /// Delete a template with all its builds and tags.
    Delete(delete::Args),
}

pub async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let server = args.server.connect()?;
    match args.verb {
        Verb::Build(args) => build::run(args, &server, output).await,
        Verb::Import(args) => import::run(args, &server, output).await,
        Verb::Export(args) => export::run(args, &server, output).await,
        Verb::List => list::run(&server, output).await,
        Verb::Logs(args) => logs::run(args, &server, output).await,
        Verb::Set(args) => set::run(args, &server, output).await,
        Verb::Gc(args) => gc::run(args, &server, output).await,
        Verb::Delete(args) => delete::run(&args, &server, output).await,
    }
}
