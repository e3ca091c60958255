//! A process that must not outlive its caller's interest.

use std::time::Duration;

use tokio::time::Instant;

use super::{Command, Event, Events, Kill, Process};
use crate::envd::Envd;
use crate::error::EnvdError;
use crate::transport::{BEGIN_TIMEOUT, within};

/// What the agent adds to a command's limit before it ends the command by itself, which it does in
/// case that we are gone. Until then the end is ours, and is told as what it is.
const AGENT_GRACE: Duration = Duration::from_secs(10);

/// A command that is followed to its end, or killed: by [`Run::kill`], at its limit, or when this is
/// dropped before the end. What is killed is the process alone; those that it started, and that have
/// not ended with it, end with the sandbox.
#[derive(Debug)]
pub struct Run {
    envd: Envd,
    events: Events,
    pid: u32,
    limit: Option<Limit>,
    /// Whether a process may be left to be killed.
    is_running: bool,
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    after: Duration,
    at: Instant,
}

impl Envd {
    /// Starts a process that is killed when the answer is dropped, and waits until it runs. Its limit
    /// is kept here; what was written until then was handed out.
    ///
    /// # Cancel safety
    /// Not cancel safe: given up before it answers, it may leave a process, which the agent ends a
    /// little after its limit.
    pub async fn process_run(&self, mut command: Command) -> Result<Run, EnvdError> {
        let after = command.limit;
        // What no clock can hold is no limit.
        let limit = after.and_then(|after| {
            let at = Instant::now().checked_add(after)?;
            Some(Limit { after, at })
        });
        command.limit = after.map(|after| after.saturating_add(AGENT_GRACE));
        let started = async {
            let mut events = self.process_start(command).await?;
            let pid = events.pid().await?;
            Ok::<_, EnvdError>((events, pid))
        };
        let (events, pid) = within(BEGIN_TIMEOUT, "Start", started).await?;
        Ok(Run {
            envd: self.clone(),
            events,
            pid,
            limit,
            is_running: true,
        })
    }
}

impl Run {
    /// As the sandbox numbers it.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The next thing that happens; `None` after [`Event::Ended`]. At the command's limit it is
    /// [`EnvdError::CommandTimeout`], and the command is killed without waiting for that. Any error
    /// is the last word on the command.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Event>, EnvdError> {
        let next = match self.limit {
            None => self.events.next().await,
            Some(Limit { after, at }) => {
                // The clock is asked first: a command that never stops talking ends as well.
                let too_late = Err(EnvdError::CommandTimeout { after });
                tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(at), if self.is_running => too_late,
                    next = self.events.next() => next,
                }
            }
        };
        match &next {
            Ok(Some(Event::Ended(_)) | None) => self.is_running = false,
            Ok(Some(_)) => {}
            Err(_) => self.kill_aside(),
        }
        next
    }

    /// Kills the command. Its end is still told by [`Run::next`]; one that has ended is no error.
    pub async fn kill(&self) -> Result<(), EnvdError> {
        kill(&self.envd, self.pid).await
    }

    /// Sends the kill without anybody waiting for it. The call has a time limit of its own.
    fn kill_aside(&mut self) {
        if !std::mem::take(&mut self.is_running) {
            return;
        }
        // Outside a runtime there is nobody to send it; then the agent's own limit ends the command.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (envd, pid) = (self.envd.clone(), self.pid);
        runtime.spawn(async move {
            // Nobody is left to be told. A sandbox that does not answer is its owner's to end.
            let _ = kill(&envd, pid).await;
        });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill_aside();
    }
}

async fn kill(envd: &Envd, pid: u32) -> Result<(), EnvdError> {
    match envd
        .process_send_signal(Process::Pid(pid), Kill::Kill)
        .await
    {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
