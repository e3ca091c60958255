//! The life of the platform: bring it up, keep its children, take it down.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use casemate_node::{AdmissionLimits, Node, NodeConfig};
use casemate_rpc::{NodePort, server};
use casemate_runtime::{Runtime, Snapshots};
use casemate_tls::Pair;
use casemate_types::{EndReason, steady};
use rustix::process::Signal;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::certificates::{self, Certificates};
use super::doors::Doors;
use super::{base, clock, ready, room, sandboxes};
use crate::child::{self, End, Pids};
use crate::config::Config;
use crate::config::tls::{Certificate, Challenge};
use crate::control::ControlSetup;
use crate::credentials;
use crate::data_dir::{DataDir, admin_socket};
use crate::egress::EgressSetup;
use crate::output::Output;
use crate::signals::EndSignals;
use crate::space::measure;
use crate::user::{self, SystemUser};
use crate::{admin, data_dir, hand_over};

/// Everything that lives as long as `up` does.
struct Platform {
    config: Config,
    dir: DataDir,
    node: Node,
    doors: Doors,
    /// What each control process shows; `None`: it has none, or sees to it by itself.
    certificate: Option<watch::Receiver<Pair>>,
    egress: Arc<sandboxes::Egress>,
    runtime: Arc<sandboxes::Sandboxes>,
    pids: Pids,
    ready: AtomicBool,
    front: watch::Sender<FrontDoor>,
    /// Somebody asked for the end on the admin socket.
    asked: mpsc::Sender<Asked>,
    /// Held by whoever ends it or hands it over; true once that is done.
    over: tokio::sync::Mutex<bool>,
}

/// What becomes of the control process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrontDoor {
    /// One runs; when it dies, the next one.
    Open,
    /// The one that runs leaves, and none follows.
    Closing,
    /// It takes no requests, and asks the node nothing.
    Closed,
}

enum Asked {
    Down,
    /// To end without a word: the successor has everything.
    HandedOver,
}

/// How long the control process may take to leave: longer than it gives its requests.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(25);
/// How long one that has left may take to end what is open: longer than the edge gives it.
const SEE_OFF_TIMEOUT: Duration = Duration::from_secs(60);

/// A process that is killed lets go of its sockets a moment before it is gone.
const SOCKET_FIRST: Duration = Duration::from_millis(100);

/// What a predecessor handed over, or was made anew.
pub struct Inherited {
    pub dir: DataDir,
    pub doors: Doors,
    pub dns: Option<sandboxes::DnsSockets>,
    pub proxy: Option<sandboxes::ProxySockets>,
}

pub async fn serve(config: Config, inherited: Inherited, output: &Output) -> anyhow::Result<()> {
    let Inherited {
        dir,
        doors,
        dns,
        proxy,
    } = inherited;
    let mut signals = EndSignals::new()?;
    let user = user::ensure(user::CONTROL)?;
    let egress_user = user::ensure(user::EGRESS)?;
    user::own(&dir.control(), user)?;
    user::must_reach(&dir.control(), user::CONTROL, user)?;
    // Of what may be refused the first: it leaves nothing below `/run`.
    let certificates = Certificates::open(&config, &dir).context("the certificate for https")?;
    clock::start(&dir).context("fix the origin of steady time")?;
    let certificate = certificates.as_ref().map(Certificates::follow);
    let setup = control_setup(&config, &dir, &doors, certificate.is_some())?;
    let opened = sandboxes::open(&config, &dir, dns, proxy).await?;
    let runtime: Arc<dyn Runtime> = Arc::clone(&opened.runtime) as _;
    let snapshots: Arc<dyn Snapshots> = Arc::clone(&opened.runtime) as _;
    let node = Node::start(node_config(&config, &dir), runtime, snapshots)
        .await
        .context("start the node")?;
    let (asked, mut ends) = mpsc::channel(1);
    let platform = Arc::new(Platform {
        node,
        doors,
        certificate,
        egress: Arc::clone(&opened.egress),
        front: watch::Sender::new(FrontDoor::Open),
        runtime: Arc::clone(&opened.runtime),
        pids: Pids::default(),
        ready: AtomicBool::new(false),
        asked,
        over: tokio::sync::Mutex::default(),
        config,
        dir,
    });
    let socket = admin::listen(&admin_socket(platform.dir.root()))?;

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(keep_egress(Arc::clone(&platform), egress_user));
    tasks.spawn(keep_control(Arc::clone(&platform), user, setup));
    tasks.spawn(room::hold(platform.dir.control()));
    if let Some(certificates) = certificates {
        tasks.spawn(certificates.keep());
    }
    tasks.spawn(answer_admins(Arc::clone(&platform), socket));
    tasks.spawn(Arc::clone(&opened.runtime).keep_rules(platform.config.manage_firewall));
    let offered = Arc::clone(&platform);
    let bring = base::offer(&platform.config, &platform.node, &opened, output);
    let bring = async {
        bring.await?;
        ready::wait(offered.config.listen).await;
        anyhow::Ok(())
    };
    tokio::select! {
        brought = bring => brought?,
        () = signals.next() => return drain(&platform, output).await,
        asked = ends.recv() => return asked_to_end(&platform, asked, output),
    }
    platform.ready.store(true, Ordering::SeqCst);
    output.line(&format!(
        "casemate ready {}",
        credentials::local_url(&platform.config)
    ));
    output.note(&format!(
        "credentials for SDKs: set -a; . {}/credentials.env; set +a",
        platform.dir.root().display()
    ));
    for line in how_to_trust(&platform) {
        output.note(&line);
    }
    tokio::select! {
        () = signals.next() => {}
        asked = ends.recv() => return asked_to_end(&platform, asked, output),
    }
    tokio::select! {
        drained = drain(&platform, output) => drained,
        () = signals.next() => {
            output.note("stopped at once; sandboxes go on running");
            Ok(())
        }
    }
}

/// What clients that come over https need.
fn how_to_trust(platform: &Platform) -> Vec<String> {
    let Some(tls) = &platform.config.tls else {
        return Vec::new();
    };
    let domain = &platform.config.domain;
    let mut lines = vec![format!(
        "https at {}: E2B_DOMAIN={domain} and E2B_API_KEY are enough, where that name leads there",
        tls.listen
    )];
    match &tls.certificate {
        Certificate::Local => lines.push(format!(
            "to trust it: SSL_CERT_FILE={} (Python), NODE_EXTRA_CA_CERTS={} (Node.js)",
            platform.dir.trust_bundle().display(),
            platform.dir.authority_certificate().display()
        )),
        Certificate::Acme(acme) if matches!(acme.challenge, Challenge::Http01) => lines.push(
            format!("without a wildcard they also need E2B_SANDBOX_URL=https://sandbox.{domain}"),
        ),
        Certificate::Acme(_) | Certificate::Files { .. } => {}
    }
    lines
}

/// Ctrl-C (decision 6): nothing half made, and sandboxes go on.
async fn drain(platform: &Platform, output: &Output) -> anyhow::Result<()> {
    output.note("stopping; Ctrl-C again stops at once");
    platform.close_front_door().await;
    platform.node.drain().await;
    let running = platform.node.running().len();
    if running > 0 {
        let dir = platform.dir.root().display();
        output.note(&format!(
            "{running} sandboxes go on running and are taken over by the next `casemate up`; \
             `casemate down --data-dir {dir}` ends them"
        ));
    }
    Ok(())
}

fn node_config(config: &Config, dir: &DataDir) -> NodeConfig {
    NodeConfig {
        name: format!("node-{}", dir.instance()),
        version: env!("CARGO_PKG_VERSION").into(),
        journal_dir: dir.journal(),
        admission: AdmissionLimits {
            sandboxes_max: config.limits.sandboxes_max,
            memory_overcommit: config.limits.memory_overcommit,
            memory_reserve_bytes: config.limits.memory_reserve_mib * 1024 * 1024,
            disk_reserve_bytes: sandboxes::disk_reserve_bytes(config, dir.root()),
        },
        boots_max: config.limits.boots_max,
        queue_max: config.limits.queue_max,
        paused_memory_bytes: paused_memory_bytes(config),
        paused_max: PLACES_MAX.saturating_sub(config.limits.sandboxes_max as usize),
    }
}

/// Network slots of an instance, but for some that are prepared or given back.
const PLACES_MAX: usize = 2000;
/// Of the machine's memory where nothing else is said.
const PAUSED_MEMORY_PART: u64 = 4;

fn paused_memory_bytes(config: &Config) -> u64 {
    match config.node.paused_memory_mib {
        0 => casemate_node::memory_total_bytes() / PAUSED_MEMORY_PART,
        mib => mib.saturating_mul(1024 * 1024),
    }
}

fn control_setup(
    config: &Config,
    dir: &DataDir,
    doors: &Doors,
    is_fed: bool,
) -> anyhow::Result<ControlSetup> {
    let secret = if config.api_key_secret.is_empty() {
        crate::config::Secret::new(dir.secret("api_key_secret")?)
    } else {
        config.api_key_secret.clone()
    };
    Ok(ControlSetup {
        bootstrap: credentials::prepare(dir, config)?,
        admin_token: crate::config::Secret::new(dir.secret("admin_token")?),
        api_key_secret: secret,
        control_dir: dir.control(),
        acme_dir: DataDir::acme(dir.root()),
        doors: doors.keys().copied().collect(),
        is_fed,
        origin: steady::origin(),
        config: config.clone(),
    })
}

fn asked_to_end(platform: &Platform, asked: Option<Asked>, output: &Output) -> anyhow::Result<()> {
    match asked {
        Some(Asked::HandedOver) => {
            let running = platform.node.running().len();
            output.note(&format!(
                "handed over to another casemate, with {running} sandboxes"
            ));
        }
        Some(Asked::Down) | None => {}
    }
    Ok(())
}

async fn keep_control(platform: Arc<Platform>, user: SystemUser, setup: ControlSetup) {
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

async fn keep_egress(platform: Arc<Platform>, user: SystemUser) {
    let egress = &platform.egress;
    let setup = EgressSetup::new(&platform.config);
    let begin = || {
        let (dns, proxy) = (&egress.dns, &egress.proxy);
        let sockets = [&dns.udp, &dns.tcp, &proxy.http, &proxy.tls].map(|socket| socket.as_fd());
        let (mut process, socket) = child::start("egress", user, &setup, &sockets)?;
        platform.pids.note("egress", process.id());
        egress.attach(socket);
        anyhow::Ok(async move { Ok(process.wait().await?.into()) })
    };
    child::keep("egress", platform.pids.clone(), begin).await;
}

async fn answer_admins(platform: Arc<Platform>, socket: UnixListener) {
    let mut answers = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = answers.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
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
    async fn close_front_door(&self) {
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

    /// Gives everything to a successor. One that is gone meanwhile leaves us as we were.
    async fn hand_over(&self, successor: &UnixStream) -> anyhow::Result<()> {
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
            pid: std::process::id(),
            url: credentials::local_url(&self.config),
            domain: self.config.domain.clone(),
            instance: self.dir.instance().to_string(),
            listen: Some(self.config.listen),
            doors: super::doors::wanted(&self.config),
            ready: self.ready.load(Ordering::SeqCst),
            answers: ready::answers(self.config.listen).await,
            answers_beside: true,
            node: self.node.info().await?,
            processes: self.pids.all(),
        })))
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
                Ok(()) | Err(casemate_rpc::NodeError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn failed(error: anyhow::Error) -> admin::Reply {
    admin::Reply::Failed(format!("{error:#}"))
}
