//! The workspace as Cargo sees it, cut down to what is checked.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// All packages of the workspace.
#[derive(Debug, Default, Deserialize)]
pub struct Workspace {
    pub packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub struct Package {
    pub name: String,
    pub manifest_path: PathBuf,
    pub dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `null` for an ordinary one.
    pub kind: Option<String>,
}

impl Workspace {
    pub fn read(root: &Path) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "metadata",
                "--no-deps",
                "--format-version",
                "1",
                "--offline",
            ])
            .current_dir(root)
            .output()
            .context("start cargo metadata")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "cargo metadata failed: {}",
            errors.trim()
        );
        serde_json::from_slice(&output.stdout).context("read what cargo metadata said")
    }
}

impl Package {
    /// What it is built from; what only its tests use is its own business.
    pub fn dependencies(&self) -> impl Iterator<Item = &str> {
        let built = |dependency: &&Dependency| dependency.kind.as_deref() != Some("dev");
        self.dependencies
            .iter()
            .filter(built)
            .map(|dependency| dependency.name.as_str())
    }

    pub fn dir(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new(""))
    }
}
