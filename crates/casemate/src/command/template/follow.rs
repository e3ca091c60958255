//! A build's log as it comes, until the build has ended.

use std::io::IsTerminal;
use std::time::Duration;

use casemate_client::api::TemplateBuildInfo;
use casemate_client::{Api, ApiError};

use super::line::{Colours, show};
use crate::output::Output;

/// How often the log is asked for, as by the SDKs.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long a server may be away meanwhile, for it may be starting anew.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// How following a build ended.
pub enum Ended {
    Ready,
    Failed {
        message: String,
        /// A step's number from 1 on, or `base` or `finalize`.
        step: Option<String>,
    },
    /// By Ctrl-C; the build itself goes on.
    LeftAlone,
}

/// Shows the log on standard error until the build has ended and all of it was shown.
pub async fn follow(
    api: &Api,
    template_id: &str,
    build_id: &str,
    output: &Output,
) -> anyhow::Result<Ended> {
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let colours = Colours::of(std::io::stderr().is_terminal());
    let mut offset = 0;
    loop {
        let info = tokio::select! {
            info = ask(api, template_id, build_id, offset) => info?,
            _ = &mut interrupted => return Ok(Ended::LeftAlone),
        };
        for entry in &info.log_entries {
            output.note(&show(entry, colours));
        }
        offset += info.log_entries.len() as u64;
        if !info.log_entries.is_empty() {
            // A full page may not be the last one.
            continue;
        }
        match &*info.status {
            "waiting" | "building" => {}
            "ready" => return Ok(Ended::Ready),
            _ => {
                let reason = info.reason;
                let message = reason.as_ref().map(|reason| reason.message.clone());
                return Ok(Ended::Failed {
                    message: message.unwrap_or_else(|| "the build failed".to_owned()),
                    step: reason.and_then(|reason| reason.step),
                });
            }
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            _ = &mut interrupted => return Ok(Ended::LeftAlone),
        }
    }
}

async fn ask(
    api: &Api,
    template_id: &str,
    build_id: &str,
    offset: u64,
) -> Result<TemplateBuildInfo, ApiError> {
    let begun = tokio::time::Instant::now();
    loop {
        let asked = api.template_build_status(template_id, build_id, offset, "debug");
        match asked.await {
            Err(error) if error.is_retryable() && begun.elapsed() < AWAY_MAX => {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            other => return other,
        }
    }
}
