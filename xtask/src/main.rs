//! Checks of this repository that the compiler does not make: `cargo xtask layers`.
//!
//! Reads manifests and sources, changes nothing, needs no network.

mod layers;
mod sources;
mod workspace;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use workspace::Workspace;

const USAGE: &str = "usage: cargo xtask layers";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let checked = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["layers"] => layers(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match checked {
        Ok(violations) if violations.is_empty() => ExitCode::SUCCESS,
        Ok(violations) => {
            for violation in &violations {
                eprintln!("{violation}");
            }
            eprintln!(
                "{} violations; layers.toml says who may know whom",
                violations.len()
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn layers() -> Result<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the root")?;
    let path = root.join("layers.toml");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let rules = toml::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let workspace = Workspace::read(root)?;
    let mut violations = layers::check(&rules, &workspace);
    violations.extend(sources::check(&workspace)?);
    Ok(violations)
}
