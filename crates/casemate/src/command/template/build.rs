//! `casemate template build`

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use casemate_client::api::{StartTemplateBuild, TemplateStep};
use casemate_dockerfile::{Action, Recipe, TEXT_BYTES_MAX};

use super::files::{self, Copies};
use super::line::clean;
use super::new::{Failed, New};
use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    new: New,
    /// The Dockerfile [default: the context's].
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The folder that `COPY` copies from.
    #[arg(long, value_name = "DIR", default_value = ".")]
    context: PathBuf,
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

    let requested = args.new.request(server, output).await?;
    let (template, build) = (&requested.template_id, &requested.build_id);
    files::upload(&server.api, template, &copies, output).await?;
    let body = body(&args.new, &recipe, &copies);
    server
        .api
        .template_build_start(template, build, &body)
        .await?;
    let ended = args.new.follow(&requested, "built", server, output).await?;
    ended.or_else(|Failed { message, step }| {
        let place = place(&file, &recipe, step.as_deref());
        anyhow::bail!("{place}{}", clean(&message))
    })
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

fn body(new: &New, recipe: &Recipe, copies: &Copies) -> StartTemplateBuild {
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
        steps: Some(steps.collect()),
        ..new.recipe(recipe.start.clone(), recipe.ready.clone())
    }
}
