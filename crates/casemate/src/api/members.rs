//! This server as a member of the cluster: its certificate, whom it lets in, with whom it speaks.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use casemate_cluster::{Accepted, Arrivals, At, Identity, MemberKey, NodeConnector, Peers};
use casemate_control::members::Members;
use casemate_rpc::NodePort;
use casemate_rpc::control::{self, ControlPort, Member, MemberRole};
use casemate_rpc::far::FarNode;
use casemate_types::chain;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

/// Own certificates are made anew this often: half of their time.
const RENEW_EVERY: Duration =
    Duration::from_secs(casemate_cluster::authority::CERTIFICATE_HOURS as u64 * 3600 / 2);
/// After a certificate that could not be made.
const RENEW_RETRY: Duration = Duration::from_secs(60);
/// Connections at once of those that have no certificate; one more is closed.
const STRANGERS_MAX: usize = 64;
/// How long one of those may take to join.
const STRANGER_MAX: Duration = Duration::from_secs(20);
/// Connections of members at once.
const MEMBERS_MAX: usize = 16 * 1024;

/// Who this server is, as the authority that it shares with the others says.
fn identity(members: &Members, name: &str) -> anyhow::Result<Identity> {
    let key = MemberKey::make()?;
    let admitted = members.admit_server(name, &key.public())?;
    let member = Member {
        role: MemberRole::Api,
        name: name.to_owned(),
    };
    Ok(key.admitted(member, &admitted))
}

pub(super) fn peers(members: &Members, name: &str) -> anyhow::Result<Arc<Peers>> {
    let peers = Peers::new(&identity(members, name)?);
    Ok(Arc::new(peers.context("the server's own certificate")?))
}

/// Never returns.
pub(super) async fn keep_renewed(members: Arc<Members>, name: String, peers: Arc<Peers>) {
    let mut wait = RENEW_EVERY;
    loop {
        tokio::time::sleep(wait).await;
        let renewed = identity(&members, &name).and_then(|next| Ok(peers.renew(&next)?));
        wait = match renewed {
            Ok(()) => RENEW_EVERY,
            Err(failed) => {
                let failed = format!("{failed:#}");
                error!(
                    error = failed,
                    "the server's own certificate is not renewed"
                );
                RENEW_RETRY
            }
        };
    }
}

/// A port to a node that joined.
pub(super) fn connect(peers: &Arc<Peers>, node: &casemate_store::Node) -> Arc<dyn NodePort> {
    let connector = NodeConnector {
        peers: Arc::clone(peers),
        node: node.id.clone(),
        address: node.address.clone(),
    };
    Arc::new(FarNode::new(&node.id, connector))
}

/// Serves nodes, edges and machines that join, until `ending`; what they asked for by then is done.
pub(super) async fn serve(
    listener: TcpListener,
    peers: Arc<Peers>,
    calls: Arc<dyn ControlPort>,
    ending: CancellationToken,
) -> anyhow::Result<()> {
    let arrivals = Arrivals::of(listener, peers, At::Control);
    let mut arrivals = arrivals.context("the cluster's listener")?;
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    let tasks = TaskTracker::new();
    while let Some(Some(accepted)) = ending.run_until_cancelled(arrivals.next()).await {
        let Accepted { stream, member, .. } = accepted;
        let (calls, ending) = (Arc::clone(&calls), ending.clone());
        let Some(member) = member else {
            let Ok(place) = Arc::clone(&strangers).try_acquire_owned() else {
                debug!("too many machines want to join: one is not let in");
                continue;
            };
            tasks.spawn(async move {
                let serving = control::serve(stream, None, calls);
                let served = tokio::time::timeout(STRANGER_MAX, serving).await;
                if let Ok(Err(error)) = served {
                    debug!(%error, "a machine that wanted to join left");
                }
                drop(place);
            });
            continue;
        };
        if tasks.len() >= MEMBERS_MAX {
            warn!("too many connections of members: one is closed");
            continue;
        }
        tasks.spawn(async move {
            let serving = control::serve(stream, Some(member.clone()), calls);
            if let Some(Err(error)) = ending.run_until_cancelled(serving).await {
                debug!(error = chain(&error), member = %member, "a connection of {member} ended");
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

#[cfg(test)]
mod tests;
