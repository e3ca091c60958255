//! `casemate chaos`: whether an installation keeps its word while its processes are killed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use casemate_build::Progress;
use casemate_ops::chaos::{self, Options};

use crate::output::Output;
use crate::signals::EndSignals;

#[derive(clap::Args)]
pub struct Args {
    /// Where the installation under test is kept; it must not exist, and is removed in the end.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Import the base template from an archive instead of making it.
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Goes on until so many processes were killed, and one at least at every fail point.
    #[arg(long, default_value_t = 100)]
    kills: u64,
    /// Sandboxes at the same time.
    #[arg(long, default_value_t = 12)]
    sandboxes: usize,
}

pub async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let options = Options {
        program: std::env::current_exe().context("find our own program")?,
        data_dir: args.data_dir,
        base: args.base,
        kills: args.kills,
        sandboxes: args.sandboxes,
    };
    let mut first = EndSignals::new()?;
    let mut second = EndSignals::new()?;
    let line = output.progress("chaos");
    let progress = |percent: u8, stage: &str| line.step(percent, stage);
    let stop = async {
        first.next().await;
        line.step(
            99,
            "stopped: removing the installation; once more ends at once",
        );
    };
    let at_once = async {
        second.next().await;
        second.next().await;
    };
    let done = tokio::select! {
        done = chaos::run(&options, &progress, stop) => Some(done),
        () = at_once => None,
    };
    line.finish();
    let Some(done) = done else {
        let dir = options.data_dir.display();
        bail!("ended at once: `casemate down --purge --data-dir {dir}` removes what is left");
    };
    let report = done?;
    output.value(&report, || report.words());
    Ok(match report.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
