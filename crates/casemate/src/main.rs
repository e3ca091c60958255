//! The `casemate` program: command line, configuration, wiring, signals. No business rules.

mod admin;
mod api;
mod bucket;
mod child;
mod command;
mod config;
mod control;
mod credentials;
mod data_dir;
mod edge;
mod egress;
mod gate;
mod hand_over;
mod health;
mod holder;
mod log;
mod member;
mod node;
mod output;
mod signals;
mod space;
mod up;
mod user;

use clap::{Parser, Subcommand};

use output::Output;

/// Self-hosted sandboxes for AI agents, behind the E2B API.
#[derive(Parser)]
#[command(name = "casemate", version, propagate_version = true)]
struct Cli {
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the platform on this machine until Ctrl-C.
    Up(up::Args),
    /// Run an API server of a cluster until Ctrl-C.
    Api(api::Args),
    /// Carry clients' traffic to the sandboxes of a cluster until Ctrl-C.
    Edge(edge::Args),
    /// Run this machine's sandboxes for the API servers of a cluster, until Ctrl-C.
    Node(node::Args),
    /// Make this machine a member of a cluster.
    Join(command::join::Args),
    /// Let machines into a cluster, and look after its nodes.
    Cluster(command::cluster::Args),
    /// End all sandboxes, then the platform.
    Down(command::down::Args),
    /// Show whether the platform runs, and what it holds.
    Status(command::status::Args),
    /// Check this machine: what is missing and how to mend it.
    Doctor(command::doctor::Args),
    /// Create, list and revoke API keys.
    Key(command::key::Args),
    /// Create sandboxes and work in them.
    Sandbox(command::sandbox::Args),
    /// Build templates and work with them.
    Template(command::template::Args),
    /// Show what the running sandboxes use, the busiest first.
    Top(command::top::Args),
    /// Show what takes space in the data directory.
    Df(command::df::Args),
    /// Export the base template as an archive for `up --base`.
    Base(command::base::Args),
    /// Bring the schema of a PostgreSQL database up to date, or move a machine's store into it.
    Migrate(command::migrate::Args),
    /// Measure this installation.
    Bench(command::bench::Args),
    /// Kill the processes of an installation of its own, and see whether it keeps its word.
    Chaos(command::chaos::Args),
    /// Roles that `up` starts; not for people.
    #[command(hide = true)]
    Internal(command::internal::Args),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    match run(cli.command, &output) {
        Ok(code) => code,
        Err(error) => {
            output.error(&error);
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(command: Command, output: &Output) -> anyhow::Result<std::process::ExitCode> {
    match command {
        // These choose their own threads: a launcher must have one only.
        Command::Internal(args) => return command::internal::run(args),
        Command::Up(args) => return up::run(args, output),
        Command::Api(args) => return api::run(args, output),
        Command::Edge(args) => return edge::run(args, output),
        Command::Node(args) => return node::run(args, output),
        _ => {}
    }
    // One thread: a client waits most of the time, and `bench` must not measure its own threads
    // handing work to each other.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Cluster(args) => command::cluster::run(args, output).await?,
            Command::Join(args) => command::join::run(args, output).await?,
            Command::Down(args) => command::down::run(args, output).await?,
            Command::Status(args) => return command::status::run(args, output).await,
            Command::Doctor(args) => return command::doctor::run(args, output).await,
            Command::Key(args) => command::key::run(args, output).await?,
            Command::Sandbox(args) => return command::sandbox::run(args, output).await,
            Command::Template(args) => return command::template::run(args, output).await,
            Command::Top(args) => command::top::run(args, output).await?,
            Command::Df(args) => command::df::run(args, output).await?,
            Command::Base(args) => command::base::run(args, output).await?,
            Command::Migrate(args) => command::migrate::run(args, output).await?,
            Command::Chaos(args) => return command::chaos::run(args, output).await,
            Command::Bench(args) => command::bench::run(args, output).await?,
            Command::Up(_)
            | Command::Api(_)
            | Command::Edge(_)
            | Command::Node(_)
            | Command::Internal(_) => {}
        }
        Ok(std::process::ExitCode::SUCCESS)
    })
}
