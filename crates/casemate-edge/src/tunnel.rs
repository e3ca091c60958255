//! Connections that stopped being HTTP: bytes both ways, each direction ending by itself.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tracing::trace;

use crate::connection::{Busy, ClientConn};
use crate::link::Lease;
use crate::upstream::Upstream;

/// An upgrade that both ends agreed to.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) service: OnUpgrade,
    pub(crate) lease: Lease,
    pub(crate) upstream: Upstream,
    pub(crate) busy: Busy,
}

/// Carries bytes until both directions have ended, the sandbox ends, or the edge is cut.
pub(crate) fn start(conn: &Arc<ClientConn>, tunnel: Tunnel) {
    let owner = Arc::clone(conn);
    conn.tasks.spawn(async move {
        let Tunnel {
            client,
            service,
            lease,
            upstream,
            busy,
        } = tunnel;
        tokio::select! {
            () = lease.ended().cancelled() => {}
            () = owner.cuts.hard.cancelled() => {}
            () = owner.cuts.streams.cancelled() => {}
            () = carry(client, service) => {}
        }
        drop((upstream, lease, busy));
    });
}

async fn carry(client: OnUpgrade, service: OnUpgrade) {
    let carried = async {
        let client = client.await.map_err(std::io::Error::other)?;
        let service = service.await.map_err(std::io::Error::other)?;
        copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(service)).await
    };
    if let Err(error) = carried.await {
        trace!(%error, "an upgraded connection broke");
    }
}
