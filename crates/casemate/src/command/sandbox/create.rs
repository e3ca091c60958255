//! `casemate sandbox create`

use std::process::ExitCode;
use std::time::Duration;

use casemate_client::api::NewSandbox;
use serde_json::json;

use super::pair;
use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// What it is made from.
    #[arg(long, default_value = "base")]
    template: String,
    /// Seconds to live [default: the server's, 300].
    #[arg(long, value_name = "S")]
    timeout: Option<u32>,
    /// An environment variable of every process in it; may be given several times.
    #[arg(long = "env", value_name = "K=V", value_parser = pair)]
    env: Vec<(String, String)>,
    /// A label that lists can filter by; may be given several times.
    #[arg(long = "metadata", value_name = "K=V", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Close the internet to it.
    #[arg(long)]
    no_internet: bool,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let new = NewSandbox {
        template: args.template,
        timeout: args
            .timeout
            .map(|seconds| Duration::from_secs(seconds.into())),
        allow_internet_access: args.no_internet.then_some(false),
        metadata: args.metadata.into_iter().collect(),
        env_vars: args.env.into_iter().collect(),
        ..NewSandbox::default()
    };
    let sandbox = server.api.sandbox_create(&new).await?;
    // The agent's token stays out: this goes into logs, and every verb asks for it anew.
    let value = json!({
        "sandboxID": sandbox.sandbox_id,
        "templateID": sandbox.template_id,
        "alias": sandbox.alias,
        "domain": sandbox.domain,
        "envdVersion": sandbox.envd_version,
    });
    output.value(&value, || sandbox.sandbox_id.clone());
    Ok(ExitCode::SUCCESS)
}
