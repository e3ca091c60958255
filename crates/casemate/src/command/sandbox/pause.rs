//! `casemate sandbox pause`

use std::process::ExitCode;

use casemate_client::api::Kept;
use serde_json::json;

use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// The sandbox's id.
    id: String,
    /// Keep its files alone: its processes end, and it starts anew with `resume`.
    #[arg(long)]
    files: bool,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let (kept, words) = match args.files {
        true => (Kept::Files, "its files are kept"),
        false => (Kept::Memory, "its files and its memory are kept"),
    };
    let id = &args.id;
    server.api.sandbox_pause(id, kept).await?;
    let value = json!({"sandboxID": id, "state": "paused", "memory": kept == Kept::Memory});
    output.value(&value, || format!("paused {id}: {words}"));
    Ok(ExitCode::SUCCESS)
}
