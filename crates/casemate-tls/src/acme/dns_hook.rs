//! The operator's command that makes and removes DNS records (DNS-01).

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// Time for one run; then it is killed.
const TIMEOUT: Duration = Duration::from_secs(120);
/// What is kept of its words for the log.
const WORDS_BYTES_MAX: usize = 1024;
/// Where it finds programs; the rest of our environment is not its business.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Run as `COMMAND present NAME VALUE`, later `COMMAND cleanup NAME VALUE`: it makes, or removes, a
/// TXT record. A name may have several values at once, so it must add and not replace. Never
/// through a shell.
#[derive(Debug, Clone)]
pub struct DnsHook {
    pub command: PathBuf,
    /// Time for a record to reach all name servers before the authority is told to look.
    pub wait: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("{} cannot be run", command.display())]
    Start {
        command: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} {verb} {name} failed ({status}): {words}", command.display())]
    Failed {
        command: PathBuf,
        verb: &'static str,
        name: String,
        status: ExitStatus,
        words: String,
    },
    #[error("{} {verb} {name} took longer than {} s", command.display(), TIMEOUT.as_secs())]
    Timeout {
        command: PathBuf,
        verb: &'static str,
        name: String,
    },
}

impl DnsHook {
    pub(super) async fn present(&self, name: &str, value: &str) -> Result<(), HookError> {
        self.run("present", name, value).await
    }

    pub(super) async fn cleanup(&self, name: &str, value: &str) -> Result<(), HookError> {
        self.run("cleanup", name, value).await
    }

    async fn run(&self, verb: &'static str, name: &str, value: &str) -> Result<(), HookError> {
        let command = self.command.clone();
        let mut run = Command::new(&command);
        run.args([verb, name, value])
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let started = |source| HookError::Start {
            command: command.clone(),
            source,
        };
        let child = run.spawn().map_err(started)?;
        let ended = match tokio::time::timeout(TIMEOUT, child.wait_with_output()).await {
            Ok(ended) => ended.map_err(started)?,
            Err(_) => {
                let name = name.to_owned();
                return Err(HookError::Timeout {
                    command,
                    verb,
                    name,
                });
            }
        };
        if ended.status.success() {
            return Ok(());
        }
        let last = ended.stderr.len().saturating_sub(WORDS_BYTES_MAX);
        Err(HookError::Failed {
            command,
            verb,
            name: name.to_owned(),
            status: ended.status,
            words: String::from_utf8_lossy(&ended.stderr[last..])
                .trim()
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn the_command_gets_its_words_and_says_why_it_failed() {
        let dir = tempfile::tempdir().unwrap();
        let command = dir.path().join("hook");
        let seen = dir.path().join("seen");
        let script = format!(
            "#!/bin/sh\necho \"$@\" \"${{HOME-none}}\" >> {}\n[ $1 = present ] || {{ echo no zone >&2; exit 3; }}\n",
            seen.display()
        );
        fs::write(&command, script).unwrap();
        fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
        let hook = DnsHook {
            command,
            wait: Duration::ZERO,
        };
        hook.present("_acme-challenge.a.example", "$(id)")
            .await
            .unwrap();
        let error = hook
            .cleanup("_acme-challenge.a.example", "v")
            .await
            .unwrap_err();
        assert!(
            error.to_string().ends_with("(exit status: 3): no zone"),
            "{error}"
        );
        let told = fs::read_to_string(seen).unwrap();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines[0], "present _acme-challenge.a.example $(id) none");
        let nowhere = DnsHook {
            command: "/nowhere/hook".into(),
            wait: Duration::ZERO,
        };
        let error = nowhere.present("a", "b").await.unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/hook cannot be run");
    }
}
