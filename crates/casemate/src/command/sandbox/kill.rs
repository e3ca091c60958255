//! `casemate sandbox kill`

use std::process::ExitCode;

use casemate_client::api::SandboxFilter;
use serde_json::json;

use crate::command::server::Server;
use crate::output::Output;

/// How many are ended at the same time.
const AT_ONCE_MAX: usize = 16;

#[derive(clap::Args)]
pub struct Args {
    /// The sandboxes' ids.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Vec<String>,
    /// All sandboxes of the team, running and paused.
    #[arg(long)]
    all: bool,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let ids = if args.all {
        let listed = server.api.sandbox_list(&SandboxFilter::default()).await?;
        listed
            .into_iter()
            .map(|sandbox| sandbox.sandbox_id)
            .collect()
    } else {
        args.id
    };
    let mut outcomes = Vec::with_capacity(ids.len());
    for some in ids.chunks(AT_ONCE_MAX) {
        let calls = some
            .iter()
            .map(|id| async move { (id, server.api.sandbox_kill(id).await) });
        outcomes.extend(futures_util::future::join_all(calls).await);
    }
    let mut ended_all = true;
    let mut values = Vec::new();
    let mut lines = Vec::new();
    for (id, outcome) in outcomes {
        let (killed, line) = match &outcome {
            Ok(true) => (true, format!("ended {id}")),
            // Ended by its time between the listing and now.
            Ok(false) if args.all => (true, format!("{id} was gone already")),
            Ok(false) => (false, format!("there is no sandbox {id}")),
            Err(error) => (false, format!("{id} was not ended: {error}")),
        };
        ended_all &= killed;
        let error = outcome.err().map(|error| error.to_string());
        values.push(json!({"sandboxID": id, "killed": killed, "error": error}));
        lines.push(line);
    }
    output.value(&values, || match lines.is_empty() {
        true => "there are no sandboxes".to_owned(),
        false => lines.join("\n"),
    });
    Ok(if ended_all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
