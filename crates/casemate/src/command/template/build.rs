//! `casemate template build`

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use casemate_client::api::{NewTemplateBuild, StartTemplateBuild, TemplateStep};
use casemate_dockerfile::{Action, READY_COMMAND, Recipe, TEXT_BYTES_MAX};
use serde_json::json;

use super::files::{self, Copies};
use super::follow::{self, Ended};
use super::line::clean;
use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// What it is called: `NAME` or `NAME:TAG`. A name that is there gets a new build.
    name: String,
    /// The Dockerfile [default: the context's].
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The folder that `COPY` copies from.
    #[arg(long, value_name = "DIR", default_value = ".")]
    context: PathBuf,
    /// One more tag; may be given several times. Without any it is `default`.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Processors of its sandboxes [default: the server's, 2].
    #[arg(long, value_name = "N")]
    cpu: Option<i32>,
    /// Memory of its sandboxes [default: the server's, 1024].
    #[arg(long, value_name = "MIB")]
    memory: Option<i32>,
    /// What runs in each sandbox, instead of the Dockerfile's ENTRYPOINT and CMD.
    #[arg(long, value_name = "CMD")]
    start: Option<String>,
    /// The command that succeeds when a sandbox can be used [default: `sleep 20` where something is
    /// started].
    #[arg(long, value_name = "CMD")]
    ready: Option<String>,
    /// Take nothing from the cache.
    #[arg(long)]
    no_cache: bool,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => args.context.join("Dockerfile"),
    };
    let recipe = casemate_dockerfile::parse(&read(&file)?)
        .with_context(|| format!("{} cannot be built", file.display()))?;
    for warning in &recipe.warnings {
        let place = format!("{}:{}", file.display(), warning.line);
        output.note(&format!("{place}: {}", warning.text));
    }
    // Before anything is asked of the server: what fails here leaves no trace there.
    let copies = files::hash(&args.context, &recipe, &file).await?;

    let new = NewTemplateBuild {
        name: Some(args.name.clone()),
        tags: (!args.tags.is_empty()).then(|| args.tags.clone()),
        cpu_count: args.cpu,
        memory_mb: args.memory,
        ..NewTemplateBuild::default()
    };
    let requested = server.api.template_build_request(&new).await?;
    let (template, build) = (&requested.template_id, &requested.build_id);
    output.note(&clean(&format!("template {template}, build {build}")));
    files::upload(&server.api, template, &copies, output).await?;
    let body = body(&args, &recipe, &copies);
    server
        .api
        .template_build_start(template, build, &body)
        .await?;

    let value = |status: &str, reason: Option<&str>| {
        json!({
            "templateID": template,
            "buildID": build,
            "names": requested.names,
            "tags": requested.tags,
            "status": status,
            "reason": reason,
        })
    };
    match follow::follow(&server.api, template, build, output).await? {
        Ended::Ready => {
            let names = requested.names.join(" ");
            output.value(&value("ready", None), || clean(&format!("built {names}")));
            Ok(ExitCode::SUCCESS)
        }
        Ended::Failed { message, step } => {
            if output.is_json() {
                output.value(&value("error", Some(&message)), String::new);
            }
            let place = place(&file, &recipe, step.as_deref());
            anyhow::bail!("{place}{}", clean(&message));
        }
        Ended::LeftAlone => {
            output.note(&clean(&format!(
                "the build goes on: `casemate template logs {build}` shows how; building {} again \
                 takes its place",
                args.name
            )));
            // As a shell says it of what Ctrl-C ended.
            Ok(ExitCode::from(130))
        }
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let read = || format!("read {}", file.display());
    let mut text = String::new();
    // One byte more than is taken, so that the parser sees that it is too much.
    File::open(file)
        .and_then(|open| {
            let mut open = open.take(TEXT_BYTES_MAX as u64 + 1);
            open.read_to_string(&mut text)
        })
        .with_context(read)?;
    Ok(text)
}

/// Where a failed step stands in the file.
fn place(file: &Path, recipe: &Recipe, step: Option<&str>) -> String {
    let number = step.and_then(|step| step.parse::<usize>().ok());
    let index = number.and_then(|number| number.checked_sub(1));
    match index.and_then(|index| recipe.steps.get(index)) {
        Some(step) => format!("{}:{}: ", file.display(), step.line),
        None => String::new(),
    }
}

fn body(args: &Args, recipe: &Recipe, copies: &Copies) -> StartTemplateBuild {
    let start = args.start.clone().or_else(|| recipe.start.clone());
    let ready = args.ready.clone().or_else(|| recipe.ready.clone());
    let usual = || start.is_some().then(|| READY_COMMAND.to_owned());
    let mut hashes = copies.hashes();
    let steps = recipe.steps.iter().map(|step| {
        let (kind, step_args) = step.action.wire();
        TemplateStep {
            kind: kind.to_owned(),
            args: Some(step_args),
            files_hash: match step.action {
                Action::Copy { .. } => hashes.next(),
                _ => None,
            },
            force: Some(false),
        }
    });
    StartTemplateBuild {
        from_image: Some(recipe.from.clone()),
        force: Some(args.no_cache),
        steps: Some(steps.collect()),
        ready_cmd: ready.or_else(usual),
        start_cmd: start,
        ..StartTemplateBuild::default()
    }
}
