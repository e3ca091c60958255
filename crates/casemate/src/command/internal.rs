//! `casemate internal …`: the roles that `up` starts from this same binary.

use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(clap::Subcommand)]
enum Role {
    /// Makes sandboxes, in one thread.
    Launcher,
    /// API and edge.
    Control,
    /// The resolver of sandboxes.
    Egress,
    /// The cheapest sandbox that the kernel can make, for the bench.
    BenchFloor(crate::command::bench::FloorArgs),
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.role {
        Role::Launcher => casemate_namespaces::launcher::run(),
        Role::Control => crate::control::run()?,
        Role::Egress => crate::egress::run()?,
        Role::BenchFloor(args) => crate::command::bench::floor(args)?,
    }
    Ok(ExitCode::SUCCESS)
}
