//! Our own log: lines on standard error.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::raw;

/// Starts logging for this process; once.
pub fn start(log: &raw::Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level)
        .with_context(|| format!("log.level (LOG_LEVEL): {:?}", log.level))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    match log.format.as_str() {
        "text" => lines.init(),
        "json" => lines.json().flatten_event(true).init(),
        other => anyhow::bail!("log.format: {other:?} is neither \"text\" nor \"json\""),
    }
    Ok(())
}
