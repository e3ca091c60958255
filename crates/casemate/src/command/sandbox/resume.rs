//! `casemate sandbox resume`

use std::process::ExitCode;
use std::time::Duration;

use casemate_client::api::Kept;
use serde_json::json;

use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// The sandbox's id.
    id: String,
    /// Seconds to live from now; the life of one that runs becomes no shorter [default: the
    /// server's, 300].
    #[arg(long, value_name = "S")]
    timeout: Option<u32>,
    /// Start it anew with its files, also where its memory is kept.
    #[arg(long)]
    files: bool,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let from = match args.files {
        true => Kept::Files,
        false => Kept::Memory,
    };
    let timeout = args
        .timeout
        .map(|seconds| Duration::from_secs(seconds.into()));
    let id = &args.id;
    let connected = server.api.sandbox_connect(id, timeout, from).await?;
    let resumed = connected.resumed;
    let value = json!({"sandboxID": id, "state": "running", "resumed": resumed});
    output.value(&value, || match resumed {
        true => format!("{id} goes on"),
        false => format!("{id} runs already"),
    });
    Ok(ExitCode::SUCCESS)
}
