//! `casemate template set`
//!
//! The name says which build gets the tags, as with `docker tag`. What can be refused for more
//! reasons comes first, so that a refusal leaves the rest as it was.

use std::process::ExitCode;

use serde_json::json;

use super::line::clean;
use crate::command::server::Server;
use crate::output::Output;

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct Args {
    /// Which template, by name or id. `NAME:TAG` or `NAME:BUILD` says to which of its builds `--tag`
    /// gives tags [default: the one that the tag `default` leads to].
    #[arg(value_name = "NAME[:TAG|:BUILD]")]
    name: String,
    /// Let other teams use it.
    #[arg(long, group = "change", conflicts_with = "private")]
    public: bool,
    /// Keep it for this team.
    #[arg(long, group = "change")]
    private: bool,
    /// Give the build this tag; one that another build has moves. May be given several times.
    #[arg(long = "tag", value_name = "TAG", group = "change")]
    tags: Vec<String>,
    /// Take this tag from the template, whichever build has it. May be given several times.
    #[arg(long = "remove-tag", value_name = "TAG", group = "change")]
    remove_tags: Vec<String>,
}

pub async fn run(args: Args, server: &Server, output: &Output) -> anyhow::Result<ExitCode> {
    let template = args.name.split(':').next().unwrap_or_default();
    let mut said = json!({"template": template});
    let mut lines = Vec::new();
    if !args.tags.is_empty() {
        let assigned = server.api.template_tags_assign(&args.name, &args.tags);
        let assigned = assigned.await?;
        let tags = assigned.tags.join(", ");
        let build = &assigned.build_id;
        lines.push(format!("build {build} of {template} has the tags: {tags}"));
        said["tags"] = json!(assigned.tags);
        said["buildID"] = json!(build);
    }
    if !args.remove_tags.is_empty() {
        let tags = &args.remove_tags;
        server.api.template_tags_remove(template, tags).await?;
        lines.push(format!(
            "{template} is without the tags: {}",
            tags.join(", ")
        ));
        said["removedTags"] = json!(tags);
    }
    if args.public || args.private {
        let names = server.api.template_publish(template, args.public).await?;
        let word = if args.public { "public" } else { "private" };
        lines.push(format!("{} is {word}", names.join(" ")));
        said["public"] = json!(args.public);
        said["names"] = json!(names);
    }
    let lines: Vec<_> = lines.iter().map(|line| clean(line)).collect();
    output.value(&said, || lines.join("\n"));
    Ok(ExitCode::SUCCESS)
}
