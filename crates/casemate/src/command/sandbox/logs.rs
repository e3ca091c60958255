//! `casemate sandbox logs`

use std::process::ExitCode;

use casemate_client::api::SandboxLogEntry;

use crate::command::server::Server;
use crate::command::table::table;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    id: String,
    /// Only entries that matter at least this much.
    #[arg(long, value_enum, default_value = "debug")]
    level: Level,
    /// Only entries with this in their message.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// The newest of them, this many.
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(..=1000))]
    limit: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let level = match args.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let search = args.search.as_deref();
    let entries = server
        .api
        .sandbox_logs(&args.id, level, search, args.limit)
        .await?;
    if entries.is_empty() {
        super::must_be_known(server, &args.id).await?;
    }
    output.value(&entries, || {
        let rows: Vec<_> = entries.iter().map(row).collect();
        table(["TIME", "LEVEL", "MESSAGE", "FIELDS"], &rows)
    });
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &SandboxLogEntry) -> [String; 4] {
    let fields = entry.fields.iter();
    let fields = fields.map(|(name, value)| format!("{name}={value}"));
    [
        format!("{:.3}", entry.timestamp),
        entry.level.clone(),
        entry.message.clone(),
        fields.collect::<Vec<_>>().join(" "),
    ]
}
