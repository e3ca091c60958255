//! The node's side of its launchers: starting them, asking them, replacing those that died.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use casemate_linux::{exec, scm};
use casemate_types::InstanceId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use crate::launcher::SOCKET_FD;
use crate::launcher::message::{Refusal, Reply, Request, Setup, Use};
use crate::readiness::watch;

/// A launcher that takes longer is stuck; it is ended and replaced.
const ANSWER_SECONDS_MAX: u64 = 15;

/// The program whose `main` calls [`crate::launcher::run`] for these arguments.
#[derive(Debug, Clone)]
pub struct LauncherProgram {
    pub program: PathBuf,
    pub args: Vec<String>,
}

impl Default for LauncherProgram {
    /// Ourselves, for a program whose `main` knows these arguments.
    fn default() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            args: vec!["internal".into(), "launcher".into()],
        }
    }
}

/// Why a launcher gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LauncherError {
    #[error("the launcher refused")]
    Refused(#[source] Refusal),
    #[error("the launcher answered something else")]
    Confused,
    #[error("cannot speak to the launcher")]
    Io(#[from] io::Error),
    #[error("cannot encode a message to the launcher")]
    Encode(#[from] serde_json::Error),
    #[error("no answer from the launcher within {ANSWER_SECONDS_MAX} s")]
    Silent,
    #[error("the launchers were stopped")]
    Stopped,
}

/// What each launcher is started with.
#[derive(Debug)]
pub(crate) struct LauncherSpec {
    pub(crate) r#use: Use,
    pub(crate) program: LauncherProgram,
    pub(crate) instance: InstanceId,
    pub(crate) site: PathBuf,
    pub(crate) shown: BTreeMap<String, PathBuf>,
    pub(crate) views: PathBuf,
    pub(crate) layers_by_path: bool,
    /// The agent's binary.
    pub(crate) agent: PathBuf,
}

/// A fixed number of launchers, each asked by one caller at a time.
#[derive(Debug)]
pub(crate) struct Launchers {
    spec: LauncherSpec,
    /// Asked in turn.
    idle: Mutex<VecDeque<Launcher>>,
    permits: Semaphore,
}

#[derive(Debug)]
struct Launcher {
    socket: AsyncFd<OwnedFd>,
    process: Child,
}

impl Launchers {
    /// Starts them; the first failure is the answer.
    pub(crate) async fn start(spec: LauncherSpec, count: usize) -> Result<Self, LauncherError> {
        let all = Self {
            spec,
            idle: Mutex::default(),
            permits: Semaphore::new(count),
        };
        for _ in 0..count {
            let launcher = Launcher::start(&all.spec).await?;
            all.push(launcher);
        }
        Ok(all)
    }

    /// Asks a free launcher, waiting for one.
    ///
    /// # Cancel safety
    /// None: a launcher whose answer was not awaited is ended, and what it was making may exist.
    pub(crate) async fn ask(
        &self,
        request: &Request,
        fds: &[OwnedFd],
    ) -> Result<(Reply, Vec<OwnedFd>), LauncherError> {
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| LauncherError::Stopped)?;
        let mut launcher = match self.pop_alive() {
            Some(launcher) => launcher,
            None => Launcher::start(&self.spec).await?,
        };
        let text = serde_json::to_vec(request)?;
        // An error drops the launcher here: who knows what it would answer next.
        let (reply, fds) = launcher
            .exchange(&text, fds)
            .await
            .inspect_err(|error| warn_of_end(&launcher, &error.to_string()))?;
        self.push(launcher);
        match reply {
            Reply::Refused(refusal) => Err(LauncherError::Refused(refusal)),
            reply @ (Reply::Done | Reply::Created { .. }) => Ok((reply, fds)),
        }
    }

    /// Ends all; what asks afterwards is told so.
    pub(crate) fn stop(&self) {
        self.permits.close();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// One that died meanwhile is dropped, not asked: its caller would pay for it.
    fn pop_alive(&self) -> Option<Launcher> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut launcher = idle.pop_front()?;
            match launcher.process.try_wait() {
                Ok(None) => return Some(launcher),
                Ok(Some(status)) => warn_of_end(&launcher, &status.to_string()),
                Err(error) => warn_of_end(&launcher, &error.to_string()),
            }
        }
    }

    fn push(&self, launcher: Launcher) {
        if !self.permits.is_closed() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_back(launcher);
        }
    }
}

fn warn_of_end(launcher: &Launcher, why: &str) {
    let pid = launcher.process.id();
    tracing::warn!(
        pid,
        why,
        "a launcher ended, or is ended; another takes its place"
    );
}

impl Launcher {
    async fn start(spec: &LauncherSpec) -> Result<Self, LauncherError> {
        let (ours, theirs) = scm::pair()?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(io::Error::from)?;
        let mut command = Command::new(&spec.program.program);
        command
            .args(&spec.program.args)
            .env_clear()
            .envs(casemate_failpoint::environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        exec::inherit_fds(&mut command, vec![(theirs, SOCKET_FD)])?;
        let mut launcher = Self {
            process: command.spawn()?,
            socket: watch(ours, Interest::READABLE | Interest::WRITABLE)?,
        };
        // Its copy of the launcher's end must not outlive this call.
        drop(command);
        let setup = Setup {
            instance: spec.instance.clone(),
            site: spec.site.clone(),
            shown: spec.shown.clone(),
            views: spec.views.clone(),
            agent: spec.agent.clone(),
            layers_by_path: spec.layers_by_path,
            r#use: spec.r#use,
        };
        match launcher.exchange(&serde_json::to_vec(&setup)?, &[]).await? {
            (Reply::Done, _) => Ok(launcher),
            (Reply::Refused(refusal), _) => Err(LauncherError::Refused(refusal)),
            (Reply::Created { .. }, _) => Err(LauncherError::Confused),
        }
    }

    async fn exchange(
        &mut self,
        text: &[u8],
        fds: &[OwnedFd],
    ) -> Result<(Reply, Vec<OwnedFd>), LauncherError> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let spoken = async {
            self.socket
                .async_io(Interest::WRITABLE, |socket| scm::send(socket, text, &fds))
                .await?;
            let mut buffer = [0; 8192];
            let (length, fds) = self
                .socket
                .async_io(Interest::READABLE, |socket| scm::recv(socket, &mut buffer))
                .await?;
            if length == 0 {
                return Err(LauncherError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok((serde_json::from_slice(&buffer[..length])?, fds))
        };
        tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), spoken)
            .await
            .unwrap_or(Err(LauncherError::Silent))
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // It ends by itself once the socket is closed; what hangs is not waited for politely.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
