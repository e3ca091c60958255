//! The same through the stock SDK, beside what the SDK needs on its own account.

use std::process::Stdio;

use casemate_client::BaseUrl;
use tokio::process::Command;

use super::Bench;
use crate::bench::Sdk;
use crate::bench::error::BenchError;
use crate::bench::floor::Request;
use crate::bench::nothing::DoNothing;
use crate::bench::report::Figure;
use crate::bench::samples::Samples;

impl Bench<'_> {
    /// `Sandbox.create()` and `commands.run("true")` of the stock Python SDK.
    pub(in crate::bench) async fn sdk(&mut self) -> Result<(), BenchError> {
        let Some(sdk) = &self.options.sdk else {
            let how = "the stock SDK was not measured: name a Python that has it with --python";
            self.notes.push(how.to_owned());
            return Ok(());
        };
        let idle = DoNothing::start().await?;
        let (count, template) = (self.options.count, &*self.options.template);
        let nothing = run(sdk, &idle.base, &idle.base, (count, template), &[]).await?;
        drop(idle);
        let mut shell = Samples::default();
        for _ in 0..self.options.count {
            shell.push_duration(self.floor.measure(Request::SandboxShell).await?);
        }
        let platform = run(sdk, &sdk.api_url, self.edge, (count, template), &[]).await?;
        self.figures.extend([Figure::time(
            "stock Python SDK: create → result of `true`",
            &platform,
        )
        .beside("the SDK against a server that does nothing", &nothing)
        .beside("namespaces + overlay + `bash -l -c true`", &shell)
        .at_most_above_floor(5.0)]);
        Ok(())
    }
}

/// `more` is the script's affair.
pub(super) async fn run(
    sdk: &Sdk,
    api: &BaseUrl,
    edge: &BaseUrl,
    (count, template): (usize, &str),
    more: &[&str],
) -> Result<Samples, BenchError> {
    let output = Command::new(&sdk.python)
        .arg(&sdk.script)
        .arg(count.to_string())
        .arg(template)
        .args(more)
        .env("E2B_API_KEY", &sdk.api_key)
        .env("E2B_API_URL", api.to_string())
        .env("E2B_SANDBOX_URL", edge.to_string())
        .env_remove("E2B_DEBUG")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| BenchError::Io {
            action: "start the stock SDK's Python",
            source,
        })?;
    let said = || BenchError::Sdk {
        output: String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned(),
    };
    if !output.status.success() {
        return Err(said());
    }
    let milliseconds: Vec<f64> = serde_json::from_slice(&output.stdout).map_err(|_| said())?;
    let mut samples = Samples::default();
    milliseconds
        .into_iter()
        .for_each(|value| samples.push(value));
    Ok(samples)
}
