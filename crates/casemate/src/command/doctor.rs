//! `casemate doctor`: what this machine has and lacks, in plain words. `up` refuses with the same.

mod https;
mod kernel;
mod programs;
mod room;
mod stores;
mod tables;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::{self, Config, Flags};
use crate::output::Output;

#[derive(clap::Args)]
pub struct Args {
    /// The platform's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The settings that `up` will be given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub what: &'static str,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum State {
    Good {
        found: String,
    },
    /// It works, but weaker or with a risk.
    Warning {
        found: String,
        mend: String,
    },
    /// `up` cannot work like this.
    Fatal {
        found: String,
        mend: String,
    },
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            state: State::Good {
                found: found.into(),
            },
        }
    }

    fn warning(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            what,
            state: State::Warning {
                found: found.into(),
                mend: mend.into(),
            },
        }
    }

    fn fatal(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            what,
            state: State::Fatal {
                found: found.into(),
                mend: mend.into(),
            },
        }
    }

    pub fn is_fatal(&self) -> bool {
        matches!(self.state, State::Fatal { .. })
    }

    pub fn words(&self) -> String {
        match &self.state {
            State::Good { found } => found.clone(),
            State::Warning { found, mend } | State::Fatal { found, mend } => {
                format!("{found}. {mend}")
            }
        }
    }
}

/// What `up` needs; looked at at every start, so each look is quick.
pub fn required(config: &Config) -> Vec<Finding> {
    let mut findings = vec![kernel::root(), kernel::version(), kernel::architecture()];
    // The rest cannot be looked at without rights.
    if findings.iter().any(Finding::is_fatal) {
        return findings;
    }
    findings.extend([
        kernel::user_namespaces(),
        kernel::file_systems(),
        kernel::cgroups(),
        kernel::idmapped_mounts(&config.data_dir),
        room::disk(config),
    ]);
    findings.extend(programs::required());
    findings
}

pub async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let flags = Flags {
        data_dir: args.data_dir,
        config: args.config,
        ..Flags::default()
    };
    let config = config::load(&flags)?.config;
    let mut findings = required(&config);
    findings.push(programs::for_the_base());
    findings.extend(programs::firewalls());
    findings.push(room::way(&config.data_dir));
    findings.push(room::memory());
    findings.extend(tables::look(&config));
    findings.push(https::look(&config));
    findings.extend(stores::look(&config).await);
    findings.push(kernel::kvm());
    let fatal = findings.iter().any(Finding::is_fatal);
    output.value(
        &serde_json::json!({"ok": !fatal, "findings": findings}),
        || {
            let line = |finding: &Finding| {
                let mark = match finding.state {
                    State::Good { .. } => "ok     ",
                    State::Warning { .. } => "warning",
                    State::Fatal { .. } => "MISSING",
                };
                format!("{mark}  {:<20} {}", finding.what, finding.words())
            };
            findings.iter().map(line).collect::<Vec<_>>().join("\n")
        },
    );
    Ok(if fatal {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
