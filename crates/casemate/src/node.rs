//! `casemate node`: sandboxes of this machine for the API servers of a cluster. As `casemate up`, with
//! a gate in the place of control.
//!
//! ```text
//! node (root) ──▶ launchers (root, one thread)    make sandboxes
//!      ├────────▶ gate (casemate)     behind port 8082: API servers and edges, by certificate
//!      └────────▶ egress (casemate)   the resolver of sandboxes
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{ClusterFlags, Flags, Role};
use crate::output::Output;
use crate::up;

#[derive(clap::Args)]
pub struct Args {
    /// Where everything is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Settings; `/etc/casemate/casemate.toml` when there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Import the base template from an archive instead of making it.
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterFlags,
}

pub fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let flags = Flags {
        data_dir: args.data_dir,
        config: args.config,
        base: args.base,
        role: Role::Node,
        cluster: args.cluster,
        ..Flags::default()
    };
    up::start(&flags, false, output)
}
