//! The life of the platform: bring it up, keep its children, take it down.

mod admins;
mod front;

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use casemate_node::{AdmissionLimits, Node, NodeConfig};
use casemate_runtime::{Runtime, Snapshots};
use casemate_tls::Pair;
use casemate_types::steady;
use tokio::sync::{mpsc, watch};

use super::certificates::Certificates;
use super::doors::{Doors, looked_at};
use super::sandboxes::Purpose;
use super::{base, clock, ready, room, sandboxes};
use crate::admin;
use crate::child::{self, Pids};
use crate::config::tls::{Certificate, Challenge};
use crate::config::{Config, Role};
use crate::control::ControlSetup;
use crate::control::trial::Trial;
use crate::credentials;
use crate::data_dir::{DataDir, admin_socket};
use crate::egress::EgressSetup;
use crate::gate::GateSetup;
use crate::member;
use crate::output::Output;
use crate::signals::EndSignals;
use crate::user::{self, SystemUser};
use front::{FrontDoor, FrontSetup};

/// Everything that lives as long as `up` does.
struct Platform {
    config: Config,
    dir: DataDir,
    node: Node,
    doors: Doors,
    /// The process behind the front door.
    front_role: &'static str,
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

enum Asked {
    Down,
    /// To end without a word: the successor has everything.
    HandedOver,
}

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
    let (setup, name, certificates) = match config.role {
        Role::Node => {
            let (setup, name) = gate_setup(&config, &dir, &doors, user).await?;
            (setup, name, None)
        }
        Role::Up | Role::Api | Role::Edge => {
            user::own(&dir.control(), user)?;
            user::must_reach(&dir.control(), user::CONTROL, user)?;
            // Of what may be refused the first: it leaves nothing below `/run`.
            let certificates = Certificates::open(&config, &dir);
            let certificates = certificates.context("the certificate for https")?;
            clock::start(&dir).context("fix the origin of steady time")?;
            let setup = control_setup(&config, &dir, &doors, certificates.is_some())?;
            if dns.is_none() {
                let trial = trial(&config, dir.root(), dir.instance().as_str());
                tokio::select! {
                    tried = trial.pass(user) => tried?,
                    () = signals.next() => return Ok(()),
                }
            }
            let setup = FrontSetup::Control(Box::new(setup));
            (setup, node_name(dir.instance().as_str()), certificates)
        }
    };
    let certificate = certificates.as_ref().map(Certificates::follow);
    let opened = sandboxes::open(&config, &dir, Purpose::Serve { dns, proxy }).await?;
    let runtime: Arc<dyn Runtime> = Arc::clone(&opened.runtime) as _;
    let snapshots: Arc<dyn Snapshots> = Arc::clone(&opened.runtime) as _;
    let node = Node::start(node_config(&config, &dir, name.clone()), runtime, snapshots)
        .await
        .context("start the node")?;
    let (asked, mut ends) = mpsc::channel(1);
    let platform = Arc::new(Platform {
        node,
        doors,
        front_role: setup.role(),
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
    tasks.spawn(front::keep(Arc::clone(&platform), user, setup));
    if platform.config.role != Role::Node {
        tasks.spawn(room::hold(platform.dir.control()));
    }
    if let Some(certificates) = certificates {
        tasks.spawn(certificates.keep());
    }
    tasks.spawn(admins::answer_admins(Arc::clone(&platform), socket));
    tasks.spawn(Arc::clone(&opened.runtime).keep_rules(platform.config.manage_firewall));
    let offered = Arc::clone(&platform);
    let bring = base::offer(&platform.config, &platform.node, &opened, output);
    let bring = async {
        bring.await?;
        match offered.config.role {
            // Whether API servers speak with it says `/ready`: sandboxes are served without them.
            Role::Node => ready::answer(looked_at(&offered.config), &offered.node).await,
            Role::Up | Role::Api | Role::Edge => ready::wait(looked_at(&offered.config)).await,
        }
        anyhow::Ok(())
    };
    tokio::select! {
        brought = bring => brought?,
        () = signals.next() => return drain(&platform, output).await,
        asked = ends.recv() => return asked_to_end(&platform, asked, output),
    }
    platform.ready.store(true, Ordering::SeqCst);
    say_ready(&platform, &name, output);
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

fn say_ready(platform: &Platform, name: &str, output: &Output) {
    let config = &platform.config;
    if config.role == Role::Node {
        let health = config.cluster.health_listen;
        output.line(&format!(
            "casemate node {name} ready, health at http://{health}"
        ));
        return;
    }
    output.line(&format!(
        "casemate ready {}",
        credentials::local_url(config)
    ));
    output.note(&format!(
        "credentials for SDKs: set -a; . {}/credentials.env; set +a",
        platform.dir.root().display()
    ));
    for line in how_to_trust(platform) {
        output.note(&line);
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
        let (dir, role) = (platform.dir.root().display(), platform.config.role.word());
        output.note(&format!(
            "{running} sandboxes go on running and are taken over by the next `casemate {role}`; \
             `casemate down --data-dir {dir}` ends them"
        ));
    }
    Ok(())
}

fn node_config(config: &Config, dir: &DataDir, name: String) -> NodeConfig {
    NodeConfig {
        name,
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
        cache_bytes_max: cache_bytes_max(config, dir.root()),
    }
}

/// Of the data directory's disk where nothing else is said.
const CACHE_PART: u64 = 4;

fn cache_bytes_max(config: &Config, data_dir: &Path) -> u64 {
    match config.artifacts.cache_mib_max {
        0 => match rustix::fs::statvfs(data_dir) {
            Ok(disk) => disk.f_blocks.saturating_mul(disk.f_frsize) / CACHE_PART,
            // What is kept is bounded by what must stay free alone.
            Err(_) => u64::MAX,
        },
        mib => mib.saturating_mul(1024 * 1024),
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

/// Of the settings for control. A successor tries them before it asks to be one.
pub fn trial(config: &Config, data_dir: &Path, instance: &str) -> Trial {
    Trial {
        config: config.clone(),
        control_dir: data_dir.join("control"),
        node: node_name(instance),
        beside_another: false,
    }
}

/// Of a machine that is alone.
fn node_name(instance: &str) -> String {
    format!("node-{instance}")
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

/// Becomes, or goes on as, a member of the cluster, whose time is fixed then; what stands before the
/// node, and the node's name.
async fn gate_setup(
    config: &Config,
    dir: &DataDir,
    doors: &Doors,
    user: SystemUser,
) -> anyhow::Result<(FrontSetup, String)> {
    member::child::prepare(dir, user)?;
    let kept = clock::Kept::of(dir).context("the origin of steady time")?;
    let entered = member::child::enter(config, dir, user, kept.origin.is_none());
    let entered = entered.await.context("join the cluster")?;
    match (kept.origin, entered.origin) {
        (Some(origin), _) => steady::set_origin(origin),
        (None, Some(origin)) => kept.fix(origin)?,
        (None, None) => anyhow::bail!("no API server said the cluster's time"),
    };
    let setup = GateSetup {
        config: config.clone(),
        place: member::Place::of(dir),
        doors: doors.keys().copied().collect(),
        origin: steady::origin(),
    };
    Ok((FrontSetup::Gate(Box::new(setup)), entered.name))
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

async fn keep_egress(platform: Arc<Platform>, user: SystemUser) {
    let egress = &platform.egress;
    let setup = EgressSetup::new(&platform.config);
    let begin = || {
        let (dns, proxy) = (&egress.dns, &egress.proxy);
        let sockets = [&dns.udp, &dns.tcp, &proxy.http, &proxy.tls].map(|socket| socket.as_fd());
        let (mut process, socket) = child::start("egress", user, &setup, &sockets)?;
        platform.pids.note("egress", process.id());
        egress.attach(socket)?;
        anyhow::Ok(async move {
            tokio::select! {
                ended = process.wait() => return Ok(ended?.into()),
                () = egress.deaf() => {}
            }
            process.start_kill()?;
            Ok(process.wait().await?.into())
        })
    };
    child::keep("egress", platform.pids.clone(), begin).await;
}
