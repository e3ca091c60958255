//! `casemate top`

use casemate_client::api::{ListedSandbox, SandboxFilter, SandboxMetric, State};
use serde::Serialize;

use super::server::ServerArgs;
use super::table::{mib, table};
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
}

/// A running sandbox, and what it used last; nothing in its first seconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    sandbox: ListedSandbox,
    metrics: Option<SandboxMetric>,
}

/// Says once what the running sandboxes use, the busiest first.
pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let server = args.server.connect()?;
    let filter = SandboxFilter {
        states: vec![State::Running],
        ..SandboxFilter::default()
    };
    let sandboxes = server.api.sandbox_list(&filter).await?;
    let ids: Vec<_> = sandboxes.iter().map(|one| one.sandbox_id.clone()).collect();
    let mut latest = server.api.sandboxes_latest_metrics(&ids).await?;
    let with_metrics = |sandbox: ListedSandbox| Row {
        metrics: latest.remove(&sandbox.sandbox_id),
        sandbox,
    };
    let mut rows: Vec<_> = sandboxes.into_iter().map(with_metrics).collect();
    let key = |row: &Row| {
        let metrics = row.metrics.as_ref();
        metrics.map_or((-1.0, 0), |one| (one.cpu_used_pct, one.mem_used))
    };
    rows.sort_by(|a, b| {
        let ((a_cpu, a_memory), (b_cpu, b_memory)) = (key(a), key(b));
        b_cpu.total_cmp(&a_cpu).then(b_memory.cmp(&a_memory))
    });
    output.value(&rows, || {
        let cells: Vec<_> = rows.iter().map(cells).collect();
        table(
            ["ID", "CPU", "OF", "MEMORY", "CACHE", "DISK", "ENDS"],
            &cells,
        )
    });
    Ok(())
}

fn cells(row: &Row) -> [String; 7] {
    let sandbox = &row.sandbox;
    let used = |show: fn(&SandboxMetric) -> String| {
        row.metrics.as_ref().map_or_else(|| "-".to_owned(), show)
    };
    [
        sandbox.sandbox_id.clone(),
        used(|one| format!("{:.1} %", one.cpu_used_pct)),
        sandbox.cpu_count.to_string(),
        used(|one| format!("{} of {}", mib(one.mem_used), mib(one.mem_total))),
        used(|one| mib(one.mem_cache)),
        used(|one| format!("{} of {}", mib(one.disk_used), mib(one.disk_total))),
        format!("{:.0}", sandbox.end_at),
    ]
}
