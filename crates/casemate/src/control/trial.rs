//! Whether control can start with these settings at all, before anything is made on this machine. A
//! process without rights finds out: what a database says is parsed by nobody who is root.
//!
//! Only a start asks. A platform that runs keeps its control process through whatever becomes of its
//! database, because that may be put right.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use casemate_linux::scm;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::stores;
use crate::config::Config;
use crate::user::SystemUser;
use crate::{child, log};

/// What the process is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    pub config: Config,
    pub control_dir: PathBuf,
    /// Whose the store is to be.
    pub node: String,
    /// Another platform has the files of the store open, if it is in files.
    pub beside_another: bool,
}

/// What comes of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Fit,
    /// It may be otherwise later, without anybody's doing.
    NotNow(String),
    Never(String),
}

/// Longer than a server that does not answer is waited for. What takes longer, as a migration may,
/// goes on by itself, and control waits for it.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

impl Trial {
    /// Fails where control can never start. A database that is away is waited for, as ever.
    pub async fn pass(&self, user: SystemUser) -> anyhow::Result<()> {
        let why = match tokio::time::timeout(PATIENCE, self.ask(user)).await {
            Ok(Ok(Answer::Fit)) => return Ok(()),
            Ok(Ok(Answer::Never(why))) => bail!("{why}"),
            Ok(Ok(Answer::NotNow(why))) => why,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it takes its time".into(),
        };
        warn!(why, "the database is waited for: {why}");
        Ok(())
    }

    async fn ask(&self, user: SystemUser) -> anyhow::Result<Answer> {
        let (mut process, socket) = child::start("trial", user, self, &[])?;
        // It says one thing and ends: to wait for its end is to wait for that.
        let status = process.wait().await.context("wait for the trial")?;
        ensure!(status.success(), "the trial ended: {status}");
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        let (length, _) = scm::recv(&socket, &mut buffer).context("read what the trial said")?;
        serde_json::from_slice(&buffer[..length]).context("the trial said something else")
    }

    async fn run(&self) -> anyhow::Result<()> {
        let in_files = self.config.database.options()?.is_none();
        self.config.artifacts.open()?;
        stores::catalog(&self.config)?;
        if in_files && self.beside_another {
            return Ok(());
        }
        stores::store(&self.config, &self.control_dir, &self.node).await?;
        if !in_files {
            stores::history(&self.config, &self.control_dir).await?;
        }
        Ok(())
    }
}

/// The process.
pub fn run() -> anyhow::Result<()> {
    let (trial, _, socket) = child::receive::<Trial>()?;
    log::start(&trial.config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = match runtime.block_on(trial.run()) {
        Ok(()) => Answer::Fit,
        Err(error) if stores::is_passing(&error) => Answer::NotNow(format!("{error:#}")),
        Err(error) => Answer::Never(format!("{error:#}")),
    };
    // Whoever asked may not wait any more.
    let _ = scm::send(&socket, &serde_json::to_vec(&answer)?, &[]);
    Ok(())
}
