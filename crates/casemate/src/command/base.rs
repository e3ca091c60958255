//! `casemate base export FILE`: the base template as an archive for `up --base`.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use crate::output::Output;
use crate::up::{base::base_config, config_of, sandboxes};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Write the base template of a running platform to FILE (.tar, .tar.gz or .tar.zst).
    Export {
        file: PathBuf,
        /// The platform's data directory.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The settings that `up` was given.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let Verb::Export {
        file,
        data_dir,
        config,
    } = args.verb;
    let config = config_of(data_dir, config)?;
    let layers_dir = sandboxes::layers_dir(&config)?;
    let base = base_config(&config, &layers_dir);
    let to = file.clone();
    let export = move || casemate_build::base::export(&base, &to);
    let manifest = tokio::task::spawn_blocking(export)
        .await?
        .with_context(|| format!("export the base template to {}", file.display()))?;
    let value = json!({"file": file, "template": manifest.template_id});
    output.value(&value, || format!("wrote {}", file.display()));
    Ok(())
}
