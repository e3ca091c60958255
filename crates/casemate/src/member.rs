//! This machine as a member of a cluster: how it joins, what it keeps of that, and how its
//! certificate is renewed.
//!
//! ```text
//! DIR/member                0700  of the process that speaks with others
//! DIR/member/identity.json  0600  certificate and key
//! DIR/member/joined.json    0600  what it joined with: where the API servers are, its own address
//! ```
//!
//! A key is made here, for each certificate another one, and never leaves the machine.

pub mod child;
mod kept;
mod renewal;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use casemate_cluster::peers::connect_to_join;
use casemate_cluster::{ControlServers, Identity, JoinToken, MemberKey, Peers};
use casemate_rpc::control::{
    Admitted, ControlClient, ControlError, JoinRequest, Member, MemberRole, NodePlace,
};
use casemate_types::steady;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::info;

use crate::config::{Config, Role, Secret};
use crate::data_dir::{DataDir, make_dir};
use crate::up::clock;
use kept::Joined;

/// One attempt to join at one address: what a server does for it are some writes of its database.
const JOIN_MAX: std::time::Duration = std::time::Duration::from_secs(15);
/// How long API servers are asked what time it is. One of a former version does not say.
const ORIGIN_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// How sandboxes are isolated on nodes.
const ISOLATION: &str = "namespaces";

/// Where a member's own files are, and of which installation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Place {
    folder: PathBuf,
    instance: String,
}

impl Place {
    pub fn of(dir: &DataDir) -> Self {
        Self {
            folder: dir.member(),
            instance: dir.instance().to_string(),
        }
    }
}

/// What a machine says of itself when it becomes a member, or goes on as one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wanted {
    dir: PathBuf,
    member: Member,
    /// Of the API servers; `host:port` each.
    api: Vec<String>,
    /// Of a node.
    place: Option<NodePlace>,
    /// Needed once.
    token: Secret,
}

/// A member, and whom it speaks with.
pub struct Membership {
    wanted: Wanted,
    pub peers: Arc<Peers>,
    pub servers: Arc<ControlServers>,
}

impl Wanted {
    /// By the settings, and by what is kept in the data directory where they say nothing.
    pub fn of(config: &Config, dir: &Place) -> anyhow::Result<Self> {
        let role = match config.role {
            Role::Node => MemberRole::Node,
            Role::Edge => MemberRole::Edge,
            Role::Up | Role::Api => bail!("a {} joins no cluster", config.role.word()),
        };
        let kept = Joined::read(&dir.folder)?;
        if let Some(kept) = &kept {
            ensure!(
                kept.member.role == role,
                "{} is of {}: name another data directory with --data-dir",
                dir.folder.display(),
                kept.member
            );
        }
        let name = match (&config.cluster.name, &kept) {
            (Some(name), Some(kept)) if *name != kept.member.name => bail!(
                "this machine joined as {}: its name cannot change to {name}",
                kept.member.name
            ),
            (_, Some(kept)) => kept.member.name.clone(),
            (Some(name), None) => name.clone(),
            (None, None) => format!("{role}-{}", dir.instance),
        };
        let kept_place = kept.as_ref().and_then(|kept| kept.place.clone());
        let place = match role {
            MemberRole::Node => Some(node_place(config, kept_place)?),
            MemberRole::Edge | MemberRole::Api => None,
        };
        let mut api = config.cluster.api.clone();
        if api.is_empty() {
            api = kept.map(|kept| kept.api).unwrap_or_default();
        }
        ensure!(
            !api.is_empty(),
            "it is not said where the API servers are: set cluster.api (--api HOST:PORT)"
        );
        Ok(Self {
            dir: dir.folder.clone(),
            member: Member { role, name },
            api,
            place,
            token: config.cluster.join_token.clone(),
        })
    }

    pub fn name(&self) -> &str {
        &self.member.name
    }

    /// Whether it has a certificate, good or not.
    pub fn has_joined(&self) -> bool {
        kept::identity_path(&self.dir).is_file()
    }

    /// Becomes a member with the token, which is used up by it once. The origin of the
    /// cluster's steady time by the answer, late by the answer's way.
    pub async fn join(&self) -> Result<i64, NotEntered> {
        if self.token.is_empty() {
            return Err(NotEntered::ForGood(anyhow!(
                "this machine belongs to no cluster yet: it needs a join token, which \
                 `casemate cluster token --role {}` makes at an API server",
                self.member.role
            )));
        }
        let token = self.token.expose().parse::<JoinToken>();
        let token = token.map_err(|error| NotEntered::ForGood(error.into()))?;
        make_dir(&self.dir, 0o700)?;
        let mut last = NotEntered::Now(anyhow!("there is no API server to ask"));
        for address in &self.api {
            let at = |error: anyhow::Error| error.context(format!("join at {address}"));
            last = match timeout(JOIN_MAX, self.join_at(address, &token)).await {
                Ok(Ok(admitted)) => return Ok(admitted),
                Ok(Err(NotEntered::ForGood(error))) => return Err(NotEntered::ForGood(at(error))),
                Ok(Err(NotEntered::Now(error))) => NotEntered::Now(at(error)),
                Err(_) => NotEntered::Now(at(anyhow!("there is no answer in time"))),
            };
        }
        Err(last)
    }

    async fn join_at(&self, address: &str, token: &JoinToken) -> Result<i64, NotEntered> {
        let here = |error: std::io::Error| NotEntered::Now(error.into());
        let stream = connect_to_join(address, token.fingerprint()).await;
        let client = ControlClient::connect(stream.map_err(here)?).await;
        let client = client.map_err(here)?;
        let key = MemberKey::make().map_err(|error| NotEntered::ForGood(error.into()))?;
        let request = JoinRequest {
            token_id: token.id(),
            token_secret: token.secret(),
            member: self.member.clone(),
            public_key: key.public(),
            node: self.place.clone(),
        };
        match client.join(request).await {
            Ok(admitted) => {
                let origin = origin_by(&admitted);
                self.keep(key, &admitted)?;
                Ok(origin)
            }
            Err(error @ (ControlError::NotAdmitted { .. } | ControlError::Invalid { .. })) => {
                Err(NotEntered::ForGood(error.into()))
            }
            Err(error) => Err(NotEntered::Now(error.into())),
        }
    }

    fn keep(&self, key: MemberKey, admitted: &Admitted) -> anyhow::Result<()> {
        let identity = key.admitted(self.member.clone(), admitted);
        // What cannot be used is not kept.
        Peers::new(&identity)?;
        Joined {
            member: self.member.clone(),
            api: self.api.clone(),
            place: self.place.clone(),
        }
        .write(&self.dir)?;
        Ok(identity.write(&kept::identity_path(&self.dir))?)
    }

    /// Joins where that was not done yet, or where a token is there and the certificate is not good
    /// any more; else renews. `None` instead of the origin of the cluster's steady time where no API
    /// server was reached, which is no reason not to go on with the certificate that is there.
    pub async fn enter(self) -> Result<(Membership, Option<i64>), NotEntered> {
        if !self.has_joined() {
            let origin = self.join().await?;
            info!(member = %self.member, "joined the cluster as {}", self.member);
            return Ok(self.membership()?.with_origin(origin).await);
        }
        let membership = self.clone().membership()?;
        let failed = match membership.renew().await {
            Ok((origin, _)) => return Ok(membership.with_origin(origin).await),
            Err(failed) => failed,
        };
        if !self.token.is_empty()
            && let Ok(origin) = self.join().await
        {
            info!(member = %self.member, "joined the cluster again as {}", self.member);
            return Ok(self.membership()?.with_origin(origin).await);
        }
        if let ControlError::NotAdmitted { .. } = failed {
            // An administrator's word, not a failure.
            return Err(NotEntered::ForGood(failed.into()));
        }
        tracing::warn!(error = %failed, "no API server renews this machine's certificate now");
        Ok((membership, None))
    }

    /// With the certificate that is there.
    pub fn membership(self) -> anyhow::Result<Membership> {
        let path = kept::identity_path(&self.dir);
        let identity = Identity::read(&path)?;
        let identity = identity.with_context(|| format!("{} is not there", path.display()))?;
        ensure!(
            identity.member == self.member,
            "{} is of {}, not of {}",
            path.display(),
            identity.member,
            self.member
        );
        let peers = Arc::new(Peers::new(&identity)?);
        let servers = ControlServers::new(Arc::clone(&peers), self.api.clone());
        Ok(Membership {
            wanted: self,
            peers,
            servers: Arc::new(servers),
        })
    }
}

impl Membership {
    /// With the origin of the cluster's steady time: as API servers are asked for it, or else as it
    /// was told with a certificate.
    async fn with_origin(self, told: i64) -> (Self, Option<i64>) {
        let ask = || async {
            let client = self.servers.client().await;
            client
                .map_err(|_| ControlError::Unreachable)?
                .time_us()
                .await
        };
        let asked = timeout(ORIGIN_MAX, clock::origin_of(ask)).await;
        let origin = match asked {
            Ok(Ok(origin)) => origin,
            Ok(Err(_)) | Err(_) => told,
        };
        (self, Some(origin))
    }
}

/// The origin of the cluster's steady time, were this answer on its way for no time.
fn origin_by(admitted: &Admitted) -> i64 {
    admitted.now_us.saturating_sub(steady::since_boot_us())
}

/// Why a machine is no member.
#[derive(Debug)]
pub enum NotEntered {
    /// It may be one later, or at another server.
    Now(anyhow::Error),
    ForGood(anyhow::Error),
}

/// What is wrong on this machine stays so.
impl From<anyhow::Error> for NotEntered {
    fn from(error: anyhow::Error) -> Self {
        Self::ForGood(error)
    }
}

impl From<NotEntered> for anyhow::Error {
    fn from(not: NotEntered) -> Self {
        match not {
            NotEntered::Now(error) | NotEntered::ForGood(error) => error,
        }
    }
}

fn node_place(config: &Config, kept: Option<NodePlace>) -> anyhow::Result<NodePlace> {
    let cluster = &config.cluster;
    let (kept_address, kept_labels) = match kept {
        Some(place) => (Some(place.address), place.labels),
        None => (None, std::collections::BTreeMap::new()),
    };
    let address = cluster.address.clone().or(kept_address);
    let address = address.context(
        "it is not said where others reach this node: set cluster.address (--address HOST:PORT)",
    )?;
    Ok(NodePlace {
        address,
        labels: match cluster.labels.is_empty() {
            true => kept_labels,
            false => cluster.labels.clone(),
        },
        isolation: ISOLATION.into(),
    })
}
