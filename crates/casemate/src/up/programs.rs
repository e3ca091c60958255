//! The static programs that are part of this one, laid out as files: the agent of sandboxes, and
//! the launcher that makes them.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use casemate_namespaces::LauncherProgram;

/// What `envdVersion` says of sandboxes that run the agent in this binary.
pub const AGENT_VERSION: &str = "0.6.13";

static AGENT: Program = Program {
    name: "the agent",
    bytes: include_bytes!(concat!(env!("OUT_DIR"), "/envd")),
    folder: "node/agent",
    stem: "envd",
    variable: "CASEMATE_ENVD",
};

static LAUNCHER: Program = Program {
    name: "the launcher",
    bytes: include_bytes!(concat!(env!("OUT_DIR"), "/casemate-launcher")),
    folder: "node/launcher",
    stem: "launcher",
    variable: "CASEMATE_LAUNCHER",
};

struct Program {
    name: &'static str,
    /// Taken in by the build script; empty in a build for checks.
    bytes: &'static [u8],
    /// Of the data directory.
    folder: &'static str,
    stem: &'static str,
    /// Names a file instead, in a build for checks.
    variable: &'static str,
}

/// The agent's binary on disk.
pub fn agent(data_dir: &Path) -> anyhow::Result<PathBuf> {
    AGENT.lay_out(data_dir)
}

/// The agent of a platform that was started with this binary.
pub fn agent_of(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = AGENT.path(data_dir);
    ensure!(
        path.is_file(),
        "no agent of this binary in {}: was the platform started with another one?",
        data_dir.display()
    );
    Ok(path)
}

/// How launchers are started, with what shows their role in a list of processes.
pub fn launcher(data_dir: &Path) -> anyhow::Result<LauncherProgram> {
    Ok(LauncherProgram {
        program: LAUNCHER.lay_out(data_dir)?,
        args: vec!["internal".into(), "launcher".into()],
    })
}

/// Removes the launchers of other binaries. For whoever has the instance for itself.
pub fn forget_other_launchers(data_dir: &Path) -> anyhow::Result<()> {
    LAUNCHER
        .forget_others(data_dir)
        .with_context(|| format!("remove older files of {}", LAUNCHER.folder))
}

impl Program {
    /// Named by its content, so that an upgrade replaces nothing that runs.
    fn path(&self, data_dir: &Path) -> PathBuf {
        use sha2::Digest as _;
        let content = hex::encode(&sha2::Sha256::digest(self.bytes)[..8]);
        data_dir
            .join(self.folder)
            .join(format!("{}-{content}", self.stem))
    }

    fn lay_out(&self, data_dir: &Path) -> anyhow::Result<PathBuf> {
        if self.bytes.is_empty() {
            return match std::env::var_os(self.variable) {
                Some(path) => Ok(path.into()),
                None => bail!(
                    "this binary was built without {}: build it with scripts/quickstart, or name \
                     one with {}",
                    self.name,
                    self.variable
                ),
            };
        }
        let folder = data_dir.join(self.folder);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let path = self.path(data_dir);
        let is_whole = |file: fs::Metadata| file.len() == self.bytes.len() as u64;
        if !fs::metadata(&path).is_ok_and(is_whole) {
            write_program(&path, self.bytes)
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(path)
    }

    fn forget_others(&self, data_dir: &Path) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let ours = self.path(data_dir);
        for entry in fs::read_dir(data_dir.join(self.folder))? {
            let path = entry?.path();
            if path != ours {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Synced before it has its name: what a power loss left of it would be taken for it for ever.
fn write_program(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let half = path.with_extension("tmp");
    let mut file = fs::File::create(&half)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.sync_all()?;
    // Open for writing, it could not be executed.
    drop(file);
    fs::rename(half, path)
}
