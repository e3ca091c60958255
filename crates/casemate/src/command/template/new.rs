//! What `build` and `import` have in common: how a template is asked for, and how its build ends.

use std::process::ExitCode;

use casemate_client::api::{NewTemplateBuild, RequestedTemplateBuild, StartTemplateBuild};
use casemate_dockerfile::READY_COMMAND;
use serde_json::{Value, json};

use super::follow::{self, Ended};
use super::line::clean;
use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct New {
    /// What it is called: `NAME` or `NAME:TAG`. A name that is there gets a new build.
    name: String,
    /// One more tag; may be given several times. Without any, here or in the name, it is `default`.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Processors of its sandboxes [default: the server's, 2].
    #[arg(long, value_name = "N")]
    cpu: Option<i32>,
    /// Memory of its sandboxes [default: the server's, 1024].
    #[arg(long, value_name = "MIB")]
    memory: Option<i32>,
    /// What runs in each sandbox [default: the Dockerfile's ENTRYPOINT and CMD; what ran in a template
    /// that was exported].
    #[arg(long, value_name = "CMD")]
    start: Option<String>,
    /// The command that succeeds when a sandbox can be used [default: that of a template that was
    /// exported; else `sleep 20` where something is started].
    #[arg(long, value_name = "CMD")]
    ready: Option<String>,
    /// Take nothing from the cache.
    #[arg(long)]
    no_cache: bool,
}

/// Why a build failed.
pub struct Failed {
    pub message: String,
    /// A step's number from 1 on, or `base` or `finalize`.
    pub step: Option<String>,
}

impl New {
    /// Asks for a build, and says which it is.
    pub async fn request(
        &self,
        server: &Server,
        output: &Output,
    ) -> anyhow::Result<RequestedTemplateBuild> {
        let new = NewTemplateBuild {
            name: Some(self.name.clone()),
            tags: (!self.tags.is_empty()).then(|| self.tags.clone()),
            cpu_count: self.cpu,
            memory_mb: self.memory,
            ..NewTemplateBuild::default()
        };
        let requested = server.api.template_build_request(&new).await?;
        let (template, build) = (&requested.template_id, &requested.build_id);
        output.note(&clean(&format!("template {template}, build {build}")));
        Ok(requested)
    }

    /// The part of the recipe that flags say. `start` and `ready` are what holds without them.
    pub fn recipe(&self, start: Option<String>, ready: Option<String>) -> StartTemplateBuild {
        let start = self.start.clone().or(start);
        let usual = || start.is_some().then(|| READY_COMMAND.to_owned());
        StartTemplateBuild {
            force: Some(self.no_cache),
            ready_cmd: self.ready.clone().or(ready).or_else(usual),
            start_cmd: start,
            ..StartTemplateBuild::default()
        }
    }

    /// Follows a build to its end, and says what came of it: `done` is the word for that it is ready.
    /// Whoever asked says why it failed.
    pub async fn follow(
        &self,
        requested: &RequestedTemplateBuild,
        done: &str,
        server: &Server,
        output: &Output,
    ) -> anyhow::Result<Result<ExitCode, Failed>> {
        let (template, build) = (&requested.template_id, &requested.build_id);
        match follow::follow(&server.api, template, build, output).await? {
            Ended::Ready => {
                let words = || clean(&format!("{done} {}", requested.names.join(" ")));
                output.value(&value(requested, "ready", None), words);
                Ok(Ok(ExitCode::SUCCESS))
            }
            Ended::Failed { message, step } => {
                if output.is_json() {
                    output.value(&value(requested, "error", Some(&message)), String::new);
                }
                Ok(Err(Failed { message, step }))
            }
            Ended::LeftAlone => {
                output.note(&clean(&format!(
                    "the build goes on: `casemate template logs {build}` shows how; another build \
                     of {} takes its place",
                    self.name
                )));
                // As a shell says it of what Ctrl-C ended.
                Ok(Ok(ExitCode::from(130)))
            }
        }
    }
}

fn value(requested: &RequestedTemplateBuild, status: &str, reason: Option<&str>) -> Value {
    json!({
        "templateID": requested.template_id,
        "buildID": requested.build_id,
        "names": requested.names,
        "tags": requested.tags,
        "status": status,
        "reason": reason,
    })
}
