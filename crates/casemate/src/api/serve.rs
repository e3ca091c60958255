//! The life of an API server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use casemate_control::keys::Keys;
use casemate_control::members::{self, Members};
use casemate_control::{Control, RootSecret, ServerTimes, Shared, Sharing};
use casemate_edge::Edge;
use casemate_images::Images;
use casemate_types::steady;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::health::{ApiHealth, has_nodes};
use super::{first, front, members as ours};
use crate::bucket;
use crate::config::{Config, Role};
use crate::control::https::Https;
use crate::control::{ANNOUNCED, ASKED_TIMEOUT, ControlSetup, FIRST_WAIT, control_config, stores};
use crate::credentials;
use crate::data_dir::DataDir;
use crate::health;
use crate::holder::Holder;
use crate::output::Output;
use crate::signals::EndSignals;
use crate::up::certificates::{self, Certificates};
use crate::up::doors::{self, Door, Doors};

/// How long what is open may take to end once the listener was left.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a start made, and its end takes down.
struct Server {
    control: Arc<Control>,
    edge: Edge,
    https: Option<Https>,
    ending: CancellationToken,
    /// There is a bucket.
    carries: bool,
}

pub(super) async fn serve(config: Config, output: &Output) -> anyhow::Result<()> {
    let mut signals = EndSignals::new()?;
    // A port in use should cost nobody a minute.
    let doors = doors::open(&config, Doors::new()).await?;
    let dir = DataDir::open(&config.data_dir)?;
    Holder::note(&config, &dir)?;
    let name = name(&config, &dir);
    let store = stores::shared(&config).await?;
    steady::set_origin(stores::steady_origin(&*store).await?);
    let secret = || RootSecret::new(config.api_key_secret.expose().as_bytes().to_vec());
    let mut tasks = JoinSet::new();
    tasks.spawn(stores::keep_wall(Arc::clone(&store)));
    let members = Members::open(Arc::clone(&store), &secret()?).await?;
    let (members, keys) = (Arc::new(members), Keys::derive(&secret()?));

    let certificates = Certificates::open(&config, &dir).context("the certificate for https")?;
    let setup = ControlSetup {
        bootstrap: first::bootstrap(&keys),
        admin_token: first::admin_token(&dir, &keys)?,
        api_key_secret: config.api_key_secret.clone(),
        control_dir: dir.control(),
        acme_dir: DataDir::acme(dir.root()),
        doors: doors.keys().copied().collect(),
        is_fed: certificates.is_some(),
        origin: steady::origin(),
        config: config.clone(),
    };
    let fed = match certificates {
        None => None,
        Some(certificates) => {
            let (ours, theirs) = tokio::net::UnixStream::pair()?;
            let shown = certificates.follow();
            tasks.spawn(async move {
                if let Err(error) = certificates::feed(ours, shown).await {
                    tracing::warn!(%error, "no more certificates are shown");
                }
            });
            tasks.spawn(certificates.keep());
            Some(theirs.into_std()?)
        }
    };
    let https = Https::new(&setup, fed).await?;

    let catalogs = stores::catalog(&config)?;
    let history = stores::history(&config, &dir.control()).await?;
    let images = config.images.config(dir.control().join("images"))?;
    let images = tokio::task::spawn_blocking(move || Images::open(images)).await?;
    let images = Arc::new(images.context("images of registries")?);
    let mut control = control_config(&setup)?;
    let (leases, events) = match catalogs.shared {
        Some(shared) => (Some(shared.leases), Some(shared.events)),
        None => (None, None),
    };
    control.servers = Sharing::Several(Shared {
        address: None,
        version: env!("CARGO_PKG_VERSION").into(),
        leases,
        events,
        times: ServerTimes {
            lost_after: config.cluster.lost_after,
            ..ServerTimes::default()
        },
    });
    let routes = catalogs.routes;
    let control = Control::start(control, store, routes, history, images).await?;
    first::make(&control, &setup.bootstrap, &dir, &config).await?;

    let server = Server {
        edge: front::edge(
            &config,
            Arc::clone(&control),
            Arc::clone(&members),
            catalogs.rates,
            https.as_ref(),
        )?,
        https,
        control,
        ending: CancellationToken::new(),
        carries: !config.artifacts.bucket.is_empty(),
    };
    tasks.spawn(bucket::told(
        server.control.bucket().cloned(),
        config.artifacts.bucket.clone(),
    ));
    let mut doors = doors;
    let members_door = doors
        .remove(&Door::Cluster)
        .context("no listener for members")?;
    let health_door = doors
        .remove(&Door::Health)
        .context("no listener for health")?;
    server.begin(&mut tasks, &members, &name, members_door, health_door)?;
    // Whoever connects in the first moment waits for it instead of hearing that there is no node.
    if has_nodes(&members).await {
        let _ = tokio::time::timeout(FIRST_WAIT, server.control.can_make()).await;
    }
    let shutdown = CancellationToken::new();
    let serving = server.answer(doors, shutdown.clone())?;
    let mut serving = std::pin::pin!(serving);
    let url = credentials::local_url(&config);
    output.line(&format!("casemate api {name} ready {url}"));
    output.note(&format!(
        "credentials for SDKs and for `casemate cluster`: in {}",
        dir.root().display()
    ));
    tokio::select! {
        () = &mut serving => {}
        () = signals.next() => {}
    }
    let leaving = async {
        output.note("stopping; Ctrl-C again stops at once");
        let ((), left) = tokio::join!(
            server.leave(&shutdown),
            tokio::time::timeout(LEAVE_TIMEOUT, &mut serving)
        );
        if left.is_err() {
            tracing::warn!("connections that are open are cut");
        }
    };
    tokio::select! {
        () = leaving => {}
        () = signals.next() => output.note("stopped at once"),
    }
    Ok(())
}

/// Under which this server belongs to the cluster.
fn name(config: &Config, dir: &DataDir) -> String {
    let named = config.cluster.name.clone();
    named.unwrap_or_else(|| format!("api-{}", dir.instance()))
}

impl Server {
    /// What goes on beside the requests of clients.
    fn begin(
        &self,
        tasks: &mut JoinSet<()>,
        members: &Arc<Members>,
        name: &str,
        members_door: std::net::TcpListener,
        health_door: std::net::TcpListener,
    ) -> anyhow::Result<()> {
        let peers = ours::peers(members, name)?;
        let (connecting, carries) = (Arc::clone(&peers), self.carries);
        tasks.spawn(members::follow(
            Arc::clone(&self.control),
            Arc::clone(members),
            move |node| ours::connect(&connecting, node, carries),
        ));
        let renewing = ours::keep_renewed(Arc::clone(members), name.to_owned(), Arc::clone(&peers));
        tasks.spawn(renewing);
        let calls = Arc::new(Calls {
            control: Arc::clone(&self.control),
            members: Arc::clone(members),
        });
        let serving = ours::serve(members_door, peers, calls, self.ending.clone());
        tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(error = format!("{error:#}"), "members are not served");
            }
        });
        let health = ApiHealth::new(Arc::clone(&self.control), Arc::clone(members));
        let health = Arc::new(health);
        let watched = health::serve(health_door, Role::Api, health, self.ending.clone());
        tasks.spawn(async move {
            if let Err(error) = watched.await {
                tracing::error!(%error, "the health listener ended");
            }
        });
        Ok(())
    }

    /// Answers clients until `shutdown`, and then until what is open has ended or was cut.
    fn answer(
        &self,
        mut doors: Doors,
        shutdown: CancellationToken,
    ) -> anyhow::Result<impl Future<Output = ()>> {
        let mut take = |door| doors.remove(&door).map(TcpListener::from_std).transpose();
        let http = take(Door::Http)?.context("there is no listener for http")?;
        let (tls, redirect) = (take(Door::Https)?, take(Door::Redirect)?);
        Ok(async move {
            let https = async {
                if let (Some(https), Some(tls)) = (&self.https, tls) {
                    https.serve(&self.edge, tls, redirect, &shutdown).await;
                }
            };
            tokio::join!(self.edge.serve(http, shutdown.clone()), https);
        })
    }

    /// Says that it goes, lets go of the listeners, and ends what was begun.
    async fn leave(&self, shutdown: &CancellationToken) {
        self.ending.cancel();
        self.edge.announce_end();
        tokio::time::sleep(ANNOUNCED).await;
        shutdown.cancel();
        let settle = async {
            self.edge.asked().await;
            self.control.shutdown().await;
        };
        if tokio::time::timeout(ASKED_TIMEOUT, settle).await.is_err() {
            tracing::warn!("requests that are under way take too long to wait for");
        }
    }
}
