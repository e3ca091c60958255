//! The front door: the control process, or a node's gate, kept as long as it may be open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use casemate_rpc::{NodePort, server};
use rustix::process::Signal;
use tokio::net::UnixStream;
use tracing::warn;

use super::Platform;
use crate::child::{self, End};
use crate::control::ControlSetup;
use crate::gate::GateSetup;
use crate::up::certificates;
use crate::user::SystemUser;

/// What stands there.
pub(super) enum FrontSetup {
    Control(Box<ControlSetup>),
    Gate(Box<GateSetup>),
}

impl FrontSetup {
    pub(super) fn role(&self) -> &'static str {
        match self {
            Self::Control(_) => "control",
            Self::Gate(_) => "gate",
        }
    }

    fn start(
        &self,
        user: SystemUser,
        fds: &[BorrowedFd<'_>],
    ) -> anyhow::Result<(tokio::process::Child, OwnedFd)> {
        match self {
            Self::Control(setup) => child::start(self.role(), user, setup, fds),
            Self::Gate(setup) => child::start(self.role(), user, setup, fds),
        }
    }
}

/// What becomes of the process of the front door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrontDoor {
    /// One runs; when it dies, the next one.
    Open,
    /// The one that runs leaves, and none follows.
    Closing,
    /// It takes no requests, and asks the node nothing.
    Closed,
}

/// How long the process of the front door may take to leave: longer than it gives its requests.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(25);
/// How long one that has left may take to end what is open: longer than the edge gives it.
const SEE_OFF_TIMEOUT: Duration = Duration::from_secs(60);

/// A process that is killed lets go of its sockets a moment before it is gone.
const SOCKET_FIRST: Duration = Duration::from_millis(100);

pub(super) async fn keep(platform: Arc<Platform>, user: SystemUser, setup: FrontSetup) {
    let (platform, setup, role) = (&*platform, &setup, setup.role());
    let begin = || {
        anyhow::Ok(async move {
            platform.may_open().await;
            let (mut process, socket) = platform.start_front(user, setup)?;
            platform.pids.note(role, process.id());
            if *platform.front.borrow() == FrontDoor::Closing {
                // Closed while this one was started, and nobody to tell.
                platform.signal_front(Signal::TERM);
            }
            let node: Arc<dyn NodePort> = Arc::new(platform.node.clone());
            // Calls in flight run to their end by themselves: the next process does not wait for
            // what may take long, such as the end of a sandbox that resists.
            let mut serving = tokio::spawn(server::serve(socket, node));
            tokio::select! {
                ended = process.wait() => Ok(ended?.into()),
                served = &mut serving => match platform.ended_too(&mut process).await {
                    Some(end) => Ok(end),
                    // It left, or without its socket it ends by itself: what it has open needs
                    // none of us, and the next one need not wait for that.
                    None => {
                        tokio::spawn(see_off(process));
                        served??;
                        Ok(End::Left)
                    }
                },
            }
        })
    };
    child::keep(role, platform.pids.clone(), begin).await;
}

async fn see_off(mut process: tokio::process::Child) {
    let ended = tokio::time::timeout(SEE_OFF_TIMEOUT, process.wait()).await;
    if ended.is_err()
        && let Err(error) = process.kill().await
    {
        warn!(%error, "cannot end a process that has left");
    }
}

impl Platform {
    /// A process with all listeners, and what tells control the certificate.
    fn start_front(
        &self,
        user: SystemUser,
        setup: &FrontSetup,
    ) -> anyhow::Result<(tokio::process::Child, OwnedFd)> {
        let mut fds: Vec<BorrowedFd<'_>> = self.doors.values().map(AsFd::as_fd).collect();
        let Some(certificate) = &self.certificate else {
            return setup.start(user, &fds);
        };
        let (ours, theirs) = UnixStream::pair().context("make a socket pair")?;
        let theirs = theirs.into_std()?;
        fds.push(theirs.as_fd());
        let started = setup.start(user, &fds)?;
        let certificate = certificate.clone();
        tokio::spawn(async move {
            if let Err(error) = certificates::feed(ours, certificate).await {
                warn!(%error, "a control process cannot be told the certificate");
            }
        });
        Ok(started)
    }

    /// How a process ended whose socket did, where it is not one that leaves: then it takes
    /// its time.
    async fn ended_too(&self, process: &mut tokio::process::Child) -> Option<End> {
        if *self.front.borrow() != FrontDoor::Open {
            return None;
        }
        let ended = tokio::time::timeout(SOCKET_FIRST, process.wait()).await;
        ended.ok()?.ok().map(End::from)
    }

    /// Waits until one may begin.
    async fn may_open(&self) {
        let mut front = self.front.subscribe();
        loop {
            // Also when it was opened and closed again before we looked.
            self.front.send_if_modified(|front| {
                let closing = *front == FrontDoor::Closing;
                if closing {
                    *front = FrontDoor::Closed;
                }
                closing
            });
            if *front.borrow_and_update() == FrontDoor::Open {
                return;
            }
            // The sender is ours, so it does not go.
            let _ = front.changed().await;
        }
    }

    /// Lets the process of the front door answer what it has, and leave. None follows.
    pub(super) async fn close_front_door(&self) {
        let mut front = self.front.subscribe();
        self.front.send_replace(FrontDoor::Closing);
        let closed = async {
            let _ = front.wait_for(|front| *front == FrontDoor::Closed).await;
        };
        let mut closed = std::pin::pin!(closed);
        self.signal_front(Signal::TERM);
        if tokio::time::timeout(LEAVE_TIMEOUT, &mut closed)
            .await
            .is_err()
        {
            warn!("the {} process does not leave: ending it", self.front_role);
            self.signal_front(Signal::KILL);
            closed.await;
        }
    }

    fn signal_front(&self, signal: Signal) {
        // None while it starts again: then the next one does not begin.
        let pid = self.pids.of(self.front_role).and_then(|pid| {
            let pid = i32::try_from(pid).ok()?;
            rustix::process::Pid::from_raw(pid)
        });
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, signal)
        {
            warn!(%error, "cannot signal the {} process", self.front_role);
        }
    }
}
