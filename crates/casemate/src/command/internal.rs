//! `casemate internal …`: the roles that `up` and others start from this same binary.

use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(clap::Subcommand)]
enum Role {
    /// API and edge.
    Control,
    /// Tries whether the settings of `up` can do at all.
    Trial,
    /// The resolver of sandboxes.
    Egress,
    /// What stands between the network and a node.
    Gate,
    /// Joins a cluster, or renews a certificate, for a node.
    Member,
    /// Tries an idmapped mount of a folder, for `doctor`.
    ProbeIdmappedMount { dir: std::path::PathBuf },
    /// The cheapest sandbox that the kernel can make, for the bench.
    BenchFloor(crate::command::bench::FloorArgs),
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    casemate_failpoint::arm_from_environment()?;
    match args.role {
        Role::ProbeIdmappedMount { dir } => casemate_namespaces::probe::idmapped_mount(&dir)?,
        Role::Control => crate::control::run()?,
        Role::Trial => crate::control::trial::run()?,
        Role::Egress => crate::egress::run()?,
        Role::Gate => crate::gate::run()?,
        Role::Member => crate::member::child::run()?,
        Role::BenchFloor(args) => crate::command::bench::floor(args)?,
    }
    Ok(ExitCode::SUCCESS)
}
