//! `casemate template logs`

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, bail};
use casemate_client::Api;
use uuid::Uuid;

use super::line::{Colours, show};
use crate::command::server::Server;
use crate::output::Output;

/// Builds of a template among which one is looked for: a page of the server's.
const BUILDS_MAX: u32 = 100;

#[derive(clap::Args)]
pub struct Args {
    /// `NAME` for its newest build, `NAME:TAG` for the one that got the tag last, or a build's id.
    build: String,
    /// Only lines that matter at least this much.
    #[arg(long, value_enum, default_value = "debug")]
    level: Level,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let level = match args.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let (template, build) = find(&server.api, &args.build).await?;
    let colours = Colours::of(std::io::stdout().is_terminal());
    let mut entries = Vec::new();
    loop {
        let offset = entries.len() as u64;
        let asked = server
            .api
            .template_build_status(&template, &build, offset, level);
        let info = asked.await?;
        if info.log_entries.is_empty() {
            break;
        }
        if !output.is_json() {
            for entry in &info.log_entries {
                output.line(&show(entry, colours));
            }
        }
        entries.extend(info.log_entries);
    }
    if output.is_json() {
        output.value(&entries, String::new);
    }
    Ok(ExitCode::SUCCESS)
}

/// The template's id and the build's.
async fn find(api: &Api, asked: &str) -> anyhow::Result<(String, String)> {
    if Uuid::parse_str(asked).is_ok() {
        return find_build(api, asked).await;
    }
    let (name, tag) = match asked.split_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (asked, None),
    };
    let unknown = || format!("there is no template {name}: `casemate template list` shows them");
    let found = api.template_by_name(name).await?.with_context(unknown)?;
    let template = found.template_id;
    let build = match tag {
        Some(tag) if Uuid::parse_str(tag).is_ok() => tag.to_owned(),
        Some(tag) => {
            let tags = api.template_tags(&template).await?;
            let named = tags.into_iter().find(|found| found.tag == tag);
            named
                .with_context(|| format!("the template {name} has no tag {tag}"))?
                .build_id
        }
        None => {
            let builds = api.template_by_id(&template, 1).await?.builds;
            let newest = builds.into_iter().next();
            newest
                .with_context(|| format!("the template {name} has no build"))?
                .build_id
        }
    };
    Ok((template, build))
}

/// A build by its id alone: the API wants its template as well, so each is asked for its builds.
async fn find_build(api: &Api, build: &str) -> anyhow::Result<(String, String)> {
    for template in api.template_list().await? {
        let id = template.template_id;
        let builds = api.template_by_id(&id, BUILDS_MAX).await?.builds;
        if builds.iter().any(|found| found.build_id == build) {
            return Ok((id, build.to_owned()));
        }
    }
    bail!("there is no build {build} among the last {BUILDS_MAX} of any template")
}
