//! The control process: API and edge on the public listeners, over the store, without privileges.

pub mod front;
pub mod https;
pub mod stores;
pub mod trial;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use casemate_carrier::NearCarrier;
use casemate_catalog::Catalog;
use casemate_control::nodes::NodeLink;
use casemate_control::{
    AdminToken, Bootstrapped, BuildsConfig, Control, ControlConfig, Limits, RootSecret,
    WarmPoolConfig,
};
use casemate_history::Retention;
use casemate_images::Images;
use casemate_rpc::carrier::Carrier;
use casemate_rpc::{NodeClient, NodePort};
use casemate_types::steady;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Secret};
use crate::credentials::Bootstrap;
use crate::up::doors::{Door, Doors};
use crate::up::programs::AGENT_VERSION;
use crate::up::sandboxes::disk_reserve_bytes;
use crate::{bucket, child, log};

/// What the process is started with; the listeners come along, and then the socket over which it
/// is told which certificate to show.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ControlSetup {
    pub config: Config,
    pub control_dir: PathBuf,
    pub api_key_secret: Secret,
    pub admin_token: Secret,
    pub bootstrap: Bootstrap,
    /// A folder of ours for what ACME keeps.
    pub acme_dir: PathBuf,
    /// What the listeners are, in their order.
    pub doors: Vec<Door>,
    /// Whether that socket comes.
    pub is_fed: bool,
    /// Of steady time.
    pub origin: i64,
}

/// How long requests that run may go on once the node is gone.
const LINGER: Duration = Duration::from_secs(2);
/// How long nobody is let in while no node can make sandboxes. It takes an instant, but for the
/// first start of all, which makes the base template.
pub const FIRST_WAIT: Duration = Duration::from_secs(2);
/// How long answers close their connections before the listener is left: a connection that was not
/// used for so long is hardly used in the instant in which it is closed.
pub const ANNOUNCED: Duration = Duration::from_millis(500);
/// How long a drain waits for requests that need the API or the node. The slowest is a kill, for
/// which the node has 15 s.
pub const ASKED_TIMEOUT: Duration = Duration::from_secs(20);

pub fn run() -> anyhow::Result<()> {
    let (setup, fds, socket) = child::receive::<ControlSetup>()?;
    steady::set_origin(setup.origin);
    log::start(&setup.config.log)?;
    let expected = setup.doors.len() + usize::from(setup.is_fed);
    ensure!(
        fds.len() == expected,
        "control needs {expected} descriptors, got {}",
        fds.len()
    );
    let mut fds = fds.into_iter();
    let doors = setup.doors.iter().copied().zip(fds.by_ref());
    let doors = doors.map(|(door, fd)| (door, fd.into())).collect();
    let certificate = fds.next().map(Into::into);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(child::workers())
        .enable_all()
        .build()?;
    runtime.block_on(serve(setup, doors, certificate, socket))
}

async fn serve(
    setup: ControlSetup,
    doors: Doors,
    certificate: Option<UnixStream>,
    socket: OwnedFd,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let client = NodeClient::connect(socket)
        .await
        .context("speak to the node")?;
    let client = Arc::new(client);
    let node: Arc<dyn NodePort> = Arc::clone(&client) as _;
    let info = node.info().await.context("ask the node who it is")?;
    let store = stores::store(&setup.config, &setup.control_dir, &info.node).await?;
    let history = stores::history(&setup.config, &setup.control_dir).await?;
    let stores::Catalogs { routes, rates, .. } = stores::catalog(&setup.config)?;
    let catalog = Arc::new(front::CuttingCatalog::new(routes));
    let config = control_config(&setup)?;
    let images = setup
        .config
        .images
        .config(setup.control_dir.join("images"))?;
    let images = tokio::task::spawn_blocking(move || Images::open(images))
        .await
        .context("open the images of registries")?
        .context("images of registries")?;
    let written: Arc<dyn Catalog> = Arc::clone(&catalog) as _;
    let control = Control::start(config, store, written, history, Arc::new(images)).await?;
    let bucket = control.bucket().cloned();
    let told = bucket::told(bucket.clone(), setup.config.artifacts.bucket.clone());
    let carrier = bucket
        .map(|bucket| Arc::new(NearCarrier::new(Arc::clone(&node), bucket)) as Arc<dyn Carrier>);
    let port = Arc::clone(&node);
    control.add_node(&info.node, NodeLink { port, carrier });
    let first = Bootstrapped {
        team: setup
            .bootstrap
            .team_id
            .parse()
            .context("the first team's id")?,
        user: setup
            .bootstrap
            .user_id
            .parse()
            .context("the first user's id")?,
    };
    let made = control
        .bootstrap_as(&bootstrap(&setup.bootstrap), &first)
        .await;
    made.context("make the first team")?;
    let https = https::Https::new(&setup, certificate).await?;
    let front = front::Front::new(&setup, Arc::clone(&control), &catalog, rates, node, https)?;
    // Whoever connects in the first moment waits for it instead of hearing that there is no node.
    tokio::select! {
        _ = tokio::time::timeout(FIRST_WAIT, control.can_make()) => {}
        // It died already; what follows says so, and lets go of the listener.
        () = client.closed() => {}
    }
    let shutdown = CancellationToken::new();
    let serving = front.serve(doors, shutdown.clone());
    let mut serving = Box::pin(beside(serving, told));
    tokio::select! {
        served = &mut serving => return served,
        _ = terminate.recv() => {}
        () = client.closed() => {
            // Nothing can be done without the node; sandboxes need none of us. What was begun is
            // written down. First the listener goes: a platform that starts again wants it.
            drop(serving);
            let _ = tokio::time::timeout(LINGER, control.shutdown()).await;
            return Ok(());
        }
    }
    let leaving = leave(&front, &control, &client, shutdown);
    let ((), served) = tokio::join!(leaving, serving);
    served
}

/// Does one thing until it is done, and another meanwhile.
pub async fn beside<T>(main: impl Future<Output = T>, other: impl Future<Output = ()>) -> T {
    let mut main = std::pin::pin!(main);
    tokio::select! {
        done = &mut main => return done,
        () = other => {}
    }
    main.await
}

/// Makes room for a successor, which may begin as soon as the node was left: what is open then
/// needs no more than the connections that it has.
async fn leave(
    front: &front::Front,
    control: &Control,
    client: &NodeClient,
    shutdown: CancellationToken,
) {
    front.announce_end();
    tokio::select! {
        () = tokio::time::sleep(ANNOUNCED) => {}
        // It died meanwhile: whoever comes next wants the listener.
        () = client.closed() => {}
    }
    shutdown.cancel();
    let settle = async {
        front.asked().await;
        control.shutdown().await;
    };
    if tokio::time::timeout(ASKED_TIMEOUT, settle).await.is_err() {
        tracing::warn!("requests that are under way take too long to wait for");
    }
    client.leave().await;
}

pub fn control_config(setup: &ControlSetup) -> anyhow::Result<ControlConfig> {
    let secret = RootSecret::new(setup.api_key_secret.expose().as_bytes().to_vec())
        .context("auth.api_key_secret")?;
    let uploads_dir = setup.control_dir.join("uploads");
    let mut config = ControlConfig::new(secret, setup.config.domain.clone(), uploads_dir);
    config.bucket = setup.config.artifacts.open()?;
    config.paused_stored_after = setup.config.artifacts.paused_stored_after();
    config.admin_token = Some(AdminToken::new(setup.admin_token.expose().to_owned()));
    config.orphan_grace = setup.config.orphan_grace;
    config.allow_ranges = setup.config.allow_ranges.clone();
    let days = |days: u32| Duration::from_secs(u64::from(days) * 24 * 3600);
    let history = &setup.config.history;
    config.retention = Retention {
        metrics: days(history.metrics_days),
        events: days(history.events_days),
        logs: days(history.logs_days),
        bytes_max: history.mib_max.saturating_mul(1024 * 1024),
    };
    const MIB: u64 = 1024 * 1024;
    config.builds = BuildsConfig {
        images_at_hand: setup.config.images.at_hand()?,
        agent_version: AGENT_VERSION.into(),
        at_once: setup.config.builds.at_once(),
        image_mib_max: setup.config.images.image_mib_max,
        cache: days(setup.config.builds.cache_days),
        cache_steps_max: setup.config.builds.cache_steps_max,
        team_bytes_max: setup.config.builds.team_mib_max.saturating_mul(MIB),
        unused: match setup.config.builds.unused_days {
            0 => None,
            kept => Some(days(kept)),
        },
        export_bytes_max: setup.config.builds.export_mib_max.saturating_mul(MIB),
    };
    let warm_pool = &setup.config.warm_pool;
    config.warm_pool = WarmPoolConfig {
        size: warm_pool.size,
        size_per_template: warm_pool.size_per_template,
        idle: Duration::from_secs(warm_pool.idle_seconds),
    };
    let uploads = &setup.config.uploads;
    config.uploads.upload_bytes_max = uploads.upload_mib_max.saturating_mul(MIB);
    config.uploads.team_bytes_max = uploads.team_mib_max.saturating_mul(MIB);
    config.uploads.disk_reserve_bytes = disk_reserve_bytes(&setup.config, &setup.control_dir);
    config.uploads.kept_for = days(uploads.days);
    config.template_resources.disk_mib = setup.config.limits.disk_mib;
    config.template_resources.processes_max = setup.config.limits.processes_max;
    config.limits = Limits {
        sandboxes_max: setup.config.limits.team_sandboxes_max,
        life_seconds_default: setup.config.limits.sandbox_timeout_seconds,
        life_hours_max: setup.config.limits.life_hours_max,
        paused_days: setup.config.limits.paused_days,
        snapshot_days: setup.config.limits.snapshot_days,
        builds_max: setup.config.limits.team_builds_max,
        ..Limits::default()
    };
    Ok(config)
}

pub fn bootstrap(made: &Bootstrap) -> casemate_control::Bootstrap {
    casemate_control::Bootstrap {
        team_slug: "default".into(),
        team_name: "Default".into(),
        api_key: made.api_key.expose().to_owned(),
        access_token: made.access_token.expose().to_owned(),
    }
}
