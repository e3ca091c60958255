//! This server as a member of the cluster: its certificate, whom it lets in, with whom it speaks.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use casemate_cluster::{
    Accepted, Arrivals, At, Crowd, Identity, MemberKey, NodeConnector, Peers, Seldom, Shares,
};
use casemate_control::members::Members;
use casemate_control::nodes::NodeLink;
use casemate_rpc::carrier::{Carrier, FarCarrier};
use casemate_rpc::control::{self, ControlPort, Member, MemberRole};
use casemate_rpc::far::FarNode;
use casemate_types::chain;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

/// Own certificates are made anew this often: half of their time.
const RENEW_EVERY: Duration =
    Duration::from_secs(casemate_cluster::authority::CERTIFICATE_HOURS as u64 * 3600 / 2);
/// After a certificate that could not be made.
const RENEW_RETRY: Duration = Duration::from_secs(60);
/// Connections at once of those that have no certificate, half of them from one address; for one more
/// the oldest ends.
const STRANGERS_MAX: usize = 128;
/// How long one of those may take to join.
const STRANGER_MAX: Duration = Duration::from_secs(20);
/// Connections of members at once, and of one member, which needs one or two.
const MEMBERS_MAX: usize = 16 * 1024;
const CONNECTIONS_OF_ONE_MAX: usize = 64;

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

/// How a node that joined is spoken with; `carries` where there is a bucket.
pub(super) fn connect(peers: &Arc<Peers>, node: &casemate_store::Node, carries: bool) -> NodeLink {
    let connector = || NodeConnector {
        peers: Arc::clone(peers),
        node: node.id.clone(),
        address: node.address.clone(),
    };
    let carrier = carries.then(|| Arc::new(FarCarrier::new(connector())) as Arc<dyn Carrier>);
    NodeLink {
        port: Arc::new(FarNode::new(&node.id, connector())),
        carrier,
    }
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
    let strangers = Crowd::new(STRANGERS_MAX);
    let shares = Shares::new(CONNECTIONS_OF_ONE_MAX);
    let too_many = Seldom::default();
    let tasks = TaskTracker::new();
    while let Some(Some(accepted)) = ending.run_until_cancelled(arrivals.next()).await {
        let Accepted {
            stream,
            member,
            address,
            ..
        } = accepted;
        let (calls, ending) = (Arc::clone(&calls), ending.clone());
        let Some(member) = member else {
            let place = strangers.begin(address);
            tasks.spawn(async move {
                let serving = control::serve(stream, None, calls);
                let serving = tokio::time::timeout(STRANGER_MAX, serving);
                match place.cut.run_until_cancelled(serving).await {
                    Some(Ok(Err(error))) => debug!(%error, "a machine that wanted to join left"),
                    Some(Ok(Ok(())) | Err(_)) => {}
                    None => debug!("too many machines want to join: {address} has to go"),
                }
                drop(place);
            });
            continue;
        };
        let share = shares.take(&member);
        let Some(share) = share.filter(|_| tasks.len() < MEMBERS_MAX) else {
            if let Some(untold) = too_many.happened() {
                warn!(member = %member, untold, "too many connections of {member}: one is closed");
            }
            continue;
        };
        tasks.spawn(async move {
            let serving = control::serve(stream, Some(member.clone()), calls);
            if let Some(Err(error)) = ending.run_until_cancelled(serving).await {
                debug!(error = chain(&error), member = %member, "a connection of {member} ended");
            }
            drop(share);
        });
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

#[cfg(test)]
mod tests;
