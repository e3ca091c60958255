//! `casemate sandbox fork`

use std::process::ExitCode;
use std::time::Duration;

use casemate_client::api::ForkResult;
use serde_json::json;

use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// The sandbox's id; it must run, and runs on.
    id: String,
    /// How many, 1 to 100.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    count: u32,
    /// Seconds that each lives [default: the server's, 15].
    #[arg(long, value_name = "S")]
    timeout: Option<u32>,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let timeout = args
        .timeout
        .map(|seconds| Duration::from_secs(seconds.into()));
    let forks = server.api.sandbox_fork(&args.id, args.count, timeout);
    let forks = forks.await?;
    let (mut values, mut lines, mut made_all) = (Vec::new(), Vec::new(), true);
    for fork in forks {
        match fork {
            // The agent's token stays out, as with `create`.
            ForkResult::Sandbox(made) => {
                values.push(json!({"sandboxID": made.sandbox_id, "error": null}));
                lines.push(made.sandbox_id);
            }
            ForkResult::Error(error) => {
                made_all = false;
                let message = &error.message;
                output.note(&format!("one was not made: {message}"));
                values.push(json!({"sandboxID": null, "error": message}));
            }
        }
    }
    output.value(&values, || lines.join("\n"));
    Ok(match made_all {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
