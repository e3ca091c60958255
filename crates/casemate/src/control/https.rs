//! TLS in front of the edge: which certificate is shown, and the listeners with it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use casemate_edge::Edge;
use casemate_tls::acme::{self, AcmeConfig, Challenges, DnsHook};
use casemate_tls::{Current, Doorman, DoormanLimits, Pair, Redirect};
use casemate_types::chain;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::ControlSetup;
use crate::config::Config;
use crate::config::tls::{Acme, Certificate, Challenge};
use crate::data_dir::DataDir;
use crate::up::certificates::{self, Certificates};

/// How long the first certificate may take to come from the parent, which has it ready.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections between their handshake and the edge; more wait.
const GREETED_MAX: usize = 64;

/// Https of this process.
pub struct Https {
    current: Arc<Current>,
    challenges: Challenges,
    acme: Option<AcmeConfig>,
    port: u16,
}

impl Https {
    /// `None`: it is off. `fed` is where the parent says which certificate to show.
    pub async fn new(
        setup: &ControlSetup,
        fed: Option<UnixStream>,
    ) -> anyhow::Result<Option<Self>> {
        Self::fed(&setup.config, &setup.acme_dir, fed).await
    }

    /// The same of a process that keeps its certificate itself: `tasks` renew it.
    pub async fn own(
        config: &Config,
        dir: &DataDir,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Option<Self>> {
        let certificates = Certificates::open(config, dir).context("the certificate for https")?;
        let fed = match certificates {
            None => None,
            Some(certificates) => {
                let (ours, theirs) = tokio::net::UnixStream::pair()?;
                let shown = certificates.follow();
                tasks.spawn(async move {
                    if let Err(error) = certificates::feed(ours, shown).await {
                        warn!(%error, "no more certificates are shown");
                    }
                });
                tasks.spawn(certificates.keep());
                Some(theirs.into_std()?)
            }
        };
        Self::fed(config, &DataDir::acme(dir.root()), fed).await
    }

    async fn fed(
        config: &Config,
        acme_dir: &Path,
        fed: Option<UnixStream>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(tls) = &config.tls else {
            return Ok(None);
        };
        let current = Arc::new(Current::default());
        if let Some(fed) = fed {
            fed.set_nonblocking(true)?;
            let fed = tokio::net::UnixStream::from_std(fed)?;
            let lines = BufReader::new(fed);
            let (first, told) = tokio::sync::oneshot::channel();
            tokio::spawn(follow(lines, Arc::clone(&current), first));
            if !matches!(tokio::time::timeout(FIRST_TIMEOUT, told).await, Ok(Ok(()))) {
                // Not a reason to refuse http as well.
                error!("no certificate came that can be shown: clients cannot use https");
            }
        }
        let acme = match &tls.certificate {
            Certificate::Acme(acme) => Some(acme_config(config, acme_dir, acme)),
            Certificate::Local | Certificate::Files { .. } => None,
        };
        Ok(Some(Self {
            current,
            challenges: Challenges::default(),
            acme,
            port: config.https_port(),
        }))
    }

    /// The end of what is shown, in seconds since 1970.
    pub fn certificate_end(&self) -> impl Fn() -> Option<i64> + Send + Sync + 'static {
        let current = Arc::clone(&self.current);
        move || current.validity().map(|validity| validity.not_after)
    }

    /// The API with the answers to ACME's challenges, for who has the plain listener on port 80.
    pub fn with_challenges(&self, api: Router) -> Router {
        if self.acme.is_none() {
            return api;
        }
        let challenges = self.challenges.clone();
        let answer =
            async move |uri: Uri| challenges.answer(uri.path()).ok_or(StatusCode::NOT_FOUND);
        api.route("/.well-known/acme-challenge/{token}", get(answer))
    }

    /// Serves until `shutdown`, and then until what is open has ended or was cut.
    pub async fn serve(
        &self,
        edge: &Edge,
        tls: TcpListener,
        redirect: Option<TcpListener>,
        shutdown: &CancellationToken,
    ) {
        let doorman = Doorman::new(Arc::clone(&self.current), DoormanLimits::default());
        let (greeted, accepted) = mpsc::channel(GREETED_MAX);
        let renew = async {
            if let Some(acme) = self.acme.clone() {
                let kept = acme::keep(acme, Arc::clone(&self.current), self.challenges.clone());
                shutdown.run_until_cancelled(kept).await;
            }
        };
        let sent_on = async {
            if let Some(listener) = redirect {
                let redirect = Redirect {
                    challenges: self.challenges.clone(),
                    port: self.port,
                };
                redirect.serve(listener, shutdown.clone()).await;
            }
        };
        tokio::join!(
            doorman.serve(tls, greeted, shutdown.clone()),
            edge.serve_accepted(accepted, shutdown.clone()),
            renew,
            sent_on,
        );
    }
}

/// Shows each certificate that the parent sends, until it is gone.
async fn follow(
    mut lines: BufReader<tokio::net::UnixStream>,
    current: Arc<Current>,
    first: tokio::sync::oneshot::Sender<()>,
) {
    let (mut first, mut line) = (Some(first), String::new());
    loop {
        line.clear();
        match lines.read_line(&mut line).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return warn!(%error, "no more certificates come from the parent"),
        }
        let shown = serde_json::from_str::<Pair>(&line)
            .map_err(|error| error.to_string())
            .and_then(|pair| pair.read().map_err(|error| chain(&error)));
        match shown {
            Ok(checked) => current.show(checked),
            Err(error) => {
                error!(error, "a certificate of the parent's cannot be shown");
                continue;
            }
        }
        if let Some(first) = first.take() {
            let _ = first.send(());
        }
    }
}

fn acme_config(config: &Config, dir: &Path, acme: &Acme) -> AcmeConfig {
    AcmeConfig {
        directory: acme.directory.clone(),
        root: acme.ca.clone(),
        contact: acme.contact.clone(),
        names: config.acme_names(&acme.challenge),
        challenge: match &acme.challenge {
            Challenge::Http01 => acme::Challenge::Http01,
            Challenge::Dns01 { hook, wait } => acme::Challenge::Dns01(DnsHook {
                command: hook.clone(),
                wait: *wait,
            }),
        },
        dir: dir.to_owned(),
    }
}
