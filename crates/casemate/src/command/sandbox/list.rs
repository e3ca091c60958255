//! `casemate sandbox list`

use std::process::ExitCode;

use casemate_client::api::{ListedSandbox, SandboxFilter, State};

use super::pair;
use crate::command::server::Server;
use crate::command::table::table;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// Only those in this state; may be given twice.
    #[arg(long, value_enum)]
    state: Vec<Shown>,
    /// Only those with this label; may be given several times, then all must be there.
    #[arg(long = "metadata", value_name = "K=V", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Shown {
    Running,
    Paused,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let states = args.state.into_iter().map(|state| match state {
        Shown::Running => State::Running,
        Shown::Paused => State::Paused,
    });
    let filter = SandboxFilter {
        states: states.collect(),
        metadata: args.metadata.into_iter().collect(),
    };
    let sandboxes = server.api.sandbox_list(&filter).await?;
    output.value(&sandboxes, || {
        let rows: Vec<_> = sandboxes.iter().map(row).collect();
        table(
            [
                "ID", "TEMPLATE", "STATE", "STARTED", "ENDS", "CPU", "MEMORY", "METADATA",
            ],
            &rows,
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn row(sandbox: &ListedSandbox) -> [String; 8] {
    let alias = sandbox.alias.as_deref().filter(|alias| !alias.is_empty());
    let metadata = sandbox
        .metadata
        .iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"));
    [
        sandbox.sandbox_id.clone(),
        alias.unwrap_or(&sandbox.template_id).to_owned(),
        match sandbox.state {
            State::Running => "running".to_owned(),
            State::Paused => "paused".to_owned(),
        },
        format!("{:.0}", sandbox.started_at),
        format!("{:.0}", sandbox.end_at),
        sandbox.cpu_count.to_string(),
        format!("{} MB", sandbox.memory_mb),
        metadata.collect::<Vec<_>>().join(" "),
    ]
}
