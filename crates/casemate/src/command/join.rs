//! `casemate join`: makes this machine a member of a cluster, before its role is started.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::config::{self, ClusterFlags, Flags, Loaded, Role, Secret};
use crate::data_dir::DataDir;
use crate::member::{Place, Wanted, child};
use crate::output::Output;
use crate::user;

#[derive(clap::Args)]
pub struct Args {
    /// What `casemate cluster token` printed; `-` reads it from standard input.
    token: String,
    /// As what this machine joins.
    #[arg(long)]
    role: JoinRole,
    /// Where everything is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Settings; `/etc/casemate/casemate.toml` when there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterFlags,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum JoinRole {
    Node,
    Edge,
}

/// Longest token, and more.
const TOKEN_BYTES_MAX: u64 = 4096;

pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let mut cluster = args.cluster;
    cluster.join_token = Some(Secret::new(read(args.token)?));
    let flags = Flags {
        data_dir: args.data_dir,
        config: args.config,
        role: match args.role {
            JoinRole::Node => Role::Node,
            JoinRole::Edge => Role::Edge,
        },
        cluster,
        ..Flags::default()
    };
    let Loaded { config, .. } = config::load(&flags)?;
    let dir = DataDir::open(&config.data_dir)?;
    let name = match config.role {
        // Its certificate is the gate's, which is not root.
        Role::Node => {
            ensure!(
                rustix::process::geteuid().is_root(),
                "a node needs root: run it with sudo"
            );
            let user = user::ensure(user::CONTROL)?;
            child::prepare(&dir, user)?;
            child::join(&config, &dir, user).await?
        }
        Role::Up | Role::Api | Role::Edge => {
            let wanted = Wanted::of(&config, &Place::of(&dir))?;
            wanted.join().await.map_err(anyhow::Error::from)?;
            wanted.name().to_owned()
        }
    };
    let role = config.role.word();
    output.value(&json!({"name": name, "role": role}), || {
        format!(
            "joined as {role} {name}; start it: casemate {role} --data-dir {}",
            dir.root().display()
        )
    });
    Ok(())
}

fn read(token: String) -> anyhow::Result<String> {
    if token != "-" {
        return Ok(token);
    }
    let mut text = String::new();
    let mut input = std::io::Read::take(std::io::stdin(), TOKEN_BYTES_MAX);
    std::io::Read::read_to_string(&mut input, &mut text).context("read the token")?;
    Ok(text.trim().to_owned())
}
