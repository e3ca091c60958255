//! What the admin socket is asked: status, space, the end, a hand-over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use casemate_rpc::{NodeError, NodePort};
use casemate_types::EndReason;
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use super::front::FrontDoor;
use super::{Asked, Platform};
use crate::config::Role;
use crate::space::measure;
use crate::up::{doors, ready};
use crate::{admin, credentials, data_dir, hand_over};

/// After an accept that failed, as without descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

pub(super) async fn answer_admins(platform: Arc<Platform>, socket: UnixListener) {
    let mut answers = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = answers.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        // Beside each other: who waits for an end asks meanwhile whether we live.
        let platform = Arc::clone(&platform);
        answers.spawn(async move {
            if let Err(error) = platform.answer_admin(stream).await {
                warn!(
                    error = format!("{error:#}"),
                    "could not answer on the admin socket"
                );
            }
        });
    }
}

impl Platform {
    /// Gives everything to a successor. One that is gone meanwhile leaves us as we were.
    async fn hand_over(&self, successor: &UnixStream) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.config.role == Role::Up,
            "a node hands nothing over: stop it, which leaves its sandboxes running"
        );
        info!("another casemate takes over");
        self.close_front_door().await;
        self.node.drain().await;
        let sent = hand_over::send(successor, &self.dir, &self.doors, &self.egress).await;
        if let Err(error) = sent {
            self.node.undrain();
            self.front.send_replace(FrontDoor::Open);
            return Err(error.context("the successor is gone; going on"));
        }
        Ok(())
    }

    async fn answer_admin(&self, mut stream: UnixStream) -> anyhow::Result<()> {
        let done = match admin::read_request(&mut stream).await? {
            admin::Request::Status => self.status().await,
            admin::Request::Space => self.space().await,
            admin::Request::Down => return self.answer_down(stream).await,
            admin::Request::HandOver => {
                let mut over = self.over.lock().await;
                self.must_serve(&stream, *over)?;
                self.hand_over(&stream).await?;
                *over = true;
                return Ok(self.asked.send(Asked::HandedOver).await?);
            }
        };
        admin::write(&mut stream, &done.unwrap_or_else(failed)).await
    }

    async fn answer_down(&self, mut stream: UnixStream) -> anyhow::Result<()> {
        let mut over = self.over.lock().await;
        self.must_serve(&stream, *over)?;
        let ended = self.end_all(&stream).await;
        *over = ended.is_ok();
        let reply = ended.map(|()| admin::Reply::Ending).unwrap_or_else(failed);
        let told = admin::write(&mut stream, &reply).await;
        if *over {
            // Whether or not anybody heard it.
            self.asked.send(Asked::Down).await?;
        }
        told
    }

    /// A caller that gave up, as on a platform that was stopped, was told that nothing happened.
    fn must_serve(&self, caller: &UnixStream, over: bool) -> anyhow::Result<()> {
        anyhow::ensure!(!over, "the platform is ending already");
        anyhow::ensure!(admin::waits(caller), "who asked for the end is gone");
        Ok(())
    }

    async fn status(&self) -> anyhow::Result<admin::Reply> {
        Ok(admin::Reply::Status(Box::new(admin::Status {
            role: self.config.role,
            pid: std::process::id(),
            url: self.url(),
            domain: self.config.domain.clone(),
            instance: self.dir.instance().to_string(),
            listen: Some(doors::looked_at(&self.config)),
            doors: doors::wanted(&self.config),
            ready: self.ready.load(Ordering::SeqCst),
            answers: ready::answers(doors::looked_at(&self.config)).await,
            answers_beside: true,
            node: self.node.info().await?,
            processes: self.pids.all(),
        })))
    }

    fn url(&self) -> String {
        match self.config.role {
            Role::Node => format!("http://{}", self.config.cluster.health_listen),
            Role::Up | Role::Api | Role::Edge => credentials::local_url(&self.config),
        }
    }

    async fn space(&self) -> anyhow::Result<admin::Reply> {
        let pool = self.runtime.space().await?;
        let templates = self.node.info().await?.templates;
        let root = self.dir.root().to_owned();
        let measured = tokio::task::spawn_blocking(move || measure(&root, pool, &templates));
        Ok(admin::Reply::Space(Box::new(measured.await??)))
    }

    /// Ends every sandbox while control still listens, so that the store learns of it. Where that
    /// fails, or whoever asked is gone by then, the platform goes on.
    async fn end_all(&self, caller: &UnixStream) -> anyhow::Result<()> {
        self.node.drain().await;
        let ended = match self.must_serve(caller, false) {
            Ok(()) => self.end_running().await,
            gone => gone,
        };
        if ended.is_err() {
            self.node.undrain();
        }
        ended?;
        // The last ends travel to control in these moments.
        tokio::time::sleep(data_dir::SETTLE).await;
        Ok(())
    }

    async fn end_running(&self) -> anyhow::Result<()> {
        let running = self.node.running();
        info!(sandboxes = running.len(), "ending all sandboxes");
        let mut kills = tokio::task::JoinSet::new();
        for sandbox in running {
            let node = self.node.clone();
            kills.spawn(async move { node.kill(&sandbox.sandbox, EndReason::Killed).await });
        }
        while let Some(killed) = kills.join_next().await {
            match killed? {
                Ok(()) | Err(NodeError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn failed(error: anyhow::Error) -> admin::Reply {
    admin::Reply::Failed(format!("{error:#}"))
}
