//! The front door: the control process, kept as long as it may be open.

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
use crate::up::certificates;
use crate::user::SystemUser;

/// What becomes of the control process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrontDoor {
    /// One runs; when it dies, the next one.
    Open,
    /// The one that runs leaves, and none follows.
    Closing,
    /// It takes no requests, and asks the node nothing.
    Closed,
}

/// How long the control process may take to leave: longer than it gives its requests.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(25);
/// How long one that has left may take to end what is open: longer than the edge gives it.
const SEE_OFF_TIMEOUT: Duration = Duration::from_secs(60);

/// A process that is killed lets go of its sockets a moment before it is gone.
const SOCKET_FIRST: Duration = Duration::from_millis(100);

pub(super) async fn keep_control(platform: Arc<Platform>, user: SystemUser, setup: ControlSetup) {
    let (platform, setup) = (&*platform, &setup);
    let begin = || {
        anyhow::Ok(async move {
            platform.may_open().await;
            let (mut process, socket) = platform.start_control(user, setup)?;
            platform.pids.note("control", process.id());
            if *platform.front.borrow() == FrontDoor::Closing {
                // Closed while this one was started, and nobody to tell.
                platform.signal_control(Signal::TERM);
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
    child::keep("control", platform.pids.clone(), begin).await;
}

async fn see_off(mut process: tokio::process::Child) {
    let ended = tokio::time::timeout(SEE_OFF_TIMEOUT, process.wait()).await;
    if ended.is_err()
        && let Err(error) = process.kill().await
    {
        warn!(%error, "cannot end a control process that has left");
    }
}

impl Platform {
    /// A control process with all listeners, and what tells it the certificate.
    fn start_control(
        &self,
        user: SystemUser,
        setup: &ControlSetup,
    ) -> anyhow::Result<(tokio::process::Child, OwnedFd)> {
        let mut fds: Vec<BorrowedFd<'_>> = self.doors.values().map(AsFd::as_fd).collect();
        let Some(certificate) = &self.certificate else {
            return child::start("control", user, setup, &fds);
        };
        let (ours, theirs) = UnixStream::pair().context("make a socket pair")?;
        let theirs = theirs.into_std()?;
        fds.push(theirs.as_fd());
        let started = child::start("control", user, setup, &fds)?;
        let certificate = certificate.clone();
        tokio::spawn(async move {
            if let Err(error) = certificates::feed(ours, certificate).await {
                warn!(%error, "a control process cannot be told the certificate");
            }
        });
        Ok(started)
    }

    /// How a control process ended whose socket did, where it is not one that leaves: then it takes
    /// its time.
    async fn ended_too(&self, process: &mut tokio::process::Child) -> Option<End> {
        if *self.front.borrow() != FrontDoor::Open {
            return None;
        }
        let ended = tokio::time::timeout(SOCKET_FIRST, process.wait()).await;
        ended.ok()?.ok().map(End::from)
    }

    /// Waits until a control process may begin.
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

    /// Lets the control process answer what it has, and leave. None follows.
    pub(super) async fn close_front_door(&self) {
        let mut front = self.front.subscribe();
        self.front.send_replace(FrontDoor::Closing);
        let closed = async {
            let _ = front.wait_for(|front| *front == FrontDoor::Closed).await;
        };
        let mut closed = std::pin::pin!(closed);
        self.signal_control(Signal::TERM);
        if tokio::time::timeout(LEAVE_TIMEOUT, &mut closed)
            .await
            .is_err()
        {
            warn!("the control process does not leave: ending it");
            self.signal_control(Signal::KILL);
            closed.await;
        }
    }

    fn signal_control(&self, signal: Signal) {
        // None while it starts again: then the next one does not begin.
        let pid = self.pids.of("control").and_then(|pid| {
            let pid = i32::try_from(pid).ok()?;
            rustix::process::Pid::from_raw(pid)
        });
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, signal)
        {
            warn!(%error, "cannot signal the control process");
        }
    }
}
