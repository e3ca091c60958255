//! Our own re-executed children: started with one socket as standard input, over which their
//! setup and every descriptor they need arrives; started again when they die; ending by
//! themselves when the socket does.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use casemate_linux::scm;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::user::SystemUser;

/// Waits between starts of a child that dies at once: doubled from the first to the last.
const RESTART_WAIT_FIRST: Duration = Duration::from_millis(50);
const RESTART_WAIT_LAST: Duration = Duration::from_secs(5);
/// A child that lived this long starts again without waiting.
const LIVED: Duration = Duration::from_secs(10);

/// How the C library's allocator of a child behaves: a heap for two threads, not eight for each
/// processor, of which every one keeps what the busiest moment needed; and what is free at a heap's
/// end goes back to the kernel (`mallopt(3)`).
const ALLOCATOR: [(&str, &str); 2] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_TRIM_THRESHOLD_", "1048576"),
];

/// Threads of a process of ours that mostly waits: half of the processors, the other half is the
/// sandboxes'. Never one alone: now and then some work blocks for a moment.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |all| (all.get() / 2).max(2))
}

/// Starts `casemate internal ROLE` as `user` and hands it its setup.
pub fn start<T: Serialize>(
    role: &str,
    user: SystemUser,
    setup: &T,
    fds: &[BorrowedFd<'_>],
) -> anyhow::Result<(tokio::process::Child, OwnedFd)> {
    let (ours, theirs) = scm::pair().context("make a socket pair")?;
    let mut command = Command::new("/proc/self/exe");
    command
        .args([OsStr::new("internal"), OsStr::new(role)])
        .stdin(Stdio::from(theirs))
        // Secrets may stand in ours; what a child needs comes with its setup.
        .env_clear()
        .envs(ALLOCATOR)
        .envs(casemate_failpoint::environment())
        .uid(user.uid)
        .gid(user.gid)
        .current_dir("/")
        .process_group(0);
    let child = tokio::process::Command::from(command)
        .spawn()
        .with_context(|| format!("start the {role} process"))?;
    let bytes = serde_json::to_vec(setup)?;
    scm::send(&ours, &bytes, fds).with_context(|| format!("set the {role} process up"))?;
    Ok((child, ours))
}

/// In the child: the setup, its descriptors, and the socket itself.
///
/// Our children share a user: from here on none of them can look into another's memory, and what
/// one holds goes into no core dump.
pub fn receive<T: DeserializeOwned>() -> anyhow::Result<(T, Vec<OwnedFd>, OwnedFd)> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("close our memory to others")?;
    let socket = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("take the socket")?;
    let mut buffer = vec![0; scm::BYTES_MAX];
    let (length, fds) = scm::recv(&socket, &mut buffer)
        .context("this command is started by `casemate up`, not by hand")?;
    ensure!(length > 0, "the parent ended before it said what to do");
    Ok((serde_json::from_slice(&buffer[..length])?, fds, socket))
}

/// Process ids of children, for `status`.
#[derive(Debug, Clone, Default)]
pub struct Pids(Arc<Mutex<std::collections::BTreeMap<&'static str, u32>>>);

impl Pids {
    pub fn note(&self, role: &'static str, pid: Option<u32>) {
        let mut pids = self.0.lock().expect("no holder of this lock panics");
        match pid {
            Some(pid) => pids.insert(role, pid),
            None => pids.remove(role),
        };
    }

    pub fn of(&self, role: &str) -> Option<u32> {
        let pids = self.0.lock().expect("no holder of this lock panics");
        pids.get(role).copied()
    }

    pub fn all(&self) -> std::collections::BTreeMap<String, u32> {
        let pids = self.0.lock().expect("no holder of this lock panics");
        pids.iter()
            .map(|(role, pid)| ((*role).to_owned(), *pid))
            .collect()
    }
}

/// How a child came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It left because it was asked to.
    Left,
    /// Nobody asked for it.
    Unasked(ExitStatus),
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        // A service manager that stops us may signal all our processes at once.
        let asked = status.signal() == Some(rustix::process::Signal::TERM.as_raw());
        if asked || status.success() {
            Self::Left
        } else {
            Self::Unasked(status)
        }
    }
}

/// Keeps a role running: `begin` starts it and gives the child and what serves it meanwhile.
/// Never returns; drop the future to stop. The child then sees its socket end.
pub async fn keep<F>(role: &'static str, pids: Pids, mut begin: impl FnMut() -> anyhow::Result<F>)
where
    F: Future<Output = anyhow::Result<End>>,
{
    let mut wait = RESTART_WAIT_FIRST;
    loop {
        let begun = Instant::now();
        let end = match begin() {
            Ok(run) => run.await,
            Err(error) => Err(error),
        };
        pids.note(role, None);
        match end {
            Ok(End::Left) => {
                // It did as it was told: whoever comes next has nothing to wait for, as a
                // successor that takes over after others that were gone again.
                info!(role, "the {role} process left");
                wait = RESTART_WAIT_FIRST;
                tokio::time::sleep(wait.saturating_sub(begun.elapsed())).await;
                continue;
            }
            Ok(End::Unasked(status)) => {
                let status = status.to_string();
                warn!(
                    role,
                    status, "the {role} process ended ({status}) and is started again"
                );
            }
            Err(failed) => {
                error!(
                    role,
                    error = format!("{failed:#}"),
                    "the {role} process is started again"
                );
            }
        }
        wait = if begun.elapsed() > LIVED {
            RESTART_WAIT_FIRST
        } else {
            wait
        };
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RESTART_WAIT_LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long five starts take of a child that ends after a second in that way.
    async fn five_starts(end: impl Fn() -> End) -> Duration {
        let begun = Instant::now();
        let (mut starts, (started, mut all)) = (0, tokio::sync::mpsc::channel(1));
        let begin = || {
            starts += 1;
            if starts == 6 {
                let _ = started.try_send(());
            }
            let end = end();
            anyhow::Ok(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(end)
            })
        };
        tokio::select! {
            () = keep("child", Pids::default(), begin) => {}
            _ = all.recv() => {}
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_is_followed_at_once_and_who_dies_ever_later() {
        let seconds = async |end: fn() -> End| five_starts(end).await.as_secs_f64();
        let left = seconds(|| End::Left).await;
        assert!((5.0..5.1).contains(&left), "{left}");
        // 50, 100, 200, 400 and 800 ms between them.
        let died = seconds(|| End::Unasked(ExitStatus::from_raw(9))).await;
        assert!((6.5..6.7).contains(&died), "{died}");
    }

    #[test]
    fn who_was_asked_to_go_left_and_all_others_ended() {
        let signal = ExitStatus::from_raw;
        let code = |code: i32| ExitStatus::from_raw(code << 8);
        for asked in [signal(15), code(0)] {
            assert_eq!(End::from(asked), End::Left);
        }
        for unasked in [signal(9), signal(11), code(1)] {
            assert_eq!(End::from(unasked), End::Unasked(unasked));
        }
        assert_eq!(signal(9).to_string(), "signal: 9 (SIGKILL)");
    }
}
