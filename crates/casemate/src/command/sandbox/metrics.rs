//! `casemate sandbox metrics`

use std::process::ExitCode;

use casemate_client::api::SandboxMetric;

use crate::command::server::Server;
use crate::command::table::{mib, table};
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    id: String,
    /// Only from this moment on, in seconds since 1970 [default: all that is kept].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    start: Option<i64>,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let metrics = server.api.sandbox_metrics(&args.id, args.start).await?;
    if metrics.is_empty() {
        super::must_be_known(server, &args.id).await?;
    }
    output.value(&metrics, || {
        let rows: Vec<_> = metrics.iter().map(row).collect();
        table(["TIME", "CPU", "MEMORY", "CACHE", "DISK"], &rows)
    });
    Ok(ExitCode::SUCCESS)
}

fn row(one: &SandboxMetric) -> [String; 5] {
    [
        format!("{:.0}", one.timestamp),
        format!("{:.1} %", one.cpu_used_pct),
        format!("{} of {}", mib(one.mem_used), mib(one.mem_total)),
        mib(one.mem_cache),
        format!("{} of {}", mib(one.disk_used), mib(one.disk_total)),
    ]
}
