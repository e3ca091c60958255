//! `casemate template delete`

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// Its name or its id.
    template: String,
}

pub async fn run(args: &Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let template = &args.template;
    if !server.api.template_delete(template).await? {
        bail!("there is no template {template}: `casemate template list` shows them");
    }
    output.value(&json!({"template": template, "deleted": true}), || {
        format!("deleted {template}")
    });
    Ok(ExitCode::SUCCESS)
}
