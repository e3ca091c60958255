//! The cluster's API servers, of which any will do.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_rpc::control::ControlClient;
use tokio::time::timeout;
use tracing::debug;

use crate::peers::Peers;

/// One attempt at one address.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// See the module. One connection is kept for all calls; when it is gone the next address is tried.
pub struct ControlServers {
    peers: Arc<Peers>,
    /// `host:port`; a name may stand for several.
    addresses: Vec<String>,
    kept: Mutex<Kept>,
    /// One connects at a time, and the others use what came of it.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    client: Option<Arc<ControlClient>>,
    /// Tried first.
    next: usize,
}

impl ControlServers {
    pub fn new(peers: Arc<Peers>, addresses: Vec<String>) -> Self {
        Self {
            peers,
            addresses,
            kept: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// One that answers; the error is the last address's.
    pub async fn client(&self) -> io::Result<Arc<ControlClient>> {
        if let Some(client) = self.alive() {
            return Ok(client);
        }
        let _one = self.connecting.lock().await;
        if let Some(client) = self.alive() {
            return Ok(client);
        }
        let first = self.kept().next;
        let mut last = io::Error::other("no address of an API server is configured");
        for step in 0..self.addresses.len() {
            let at = (first + step) % self.addresses.len();
            let address = &self.addresses[at];
            let connecting = async {
                let stream = self.peers.connect_to_control(address).await?;
                ControlClient::connect(stream).await
            };
            match timeout(CONNECT_MAX, connecting).await {
                Ok(Ok(client)) => {
                    let client = Arc::new(client);
                    let mut kept = self.kept();
                    kept.client = Some(Arc::clone(&client));
                    // Should this one go, the next is asked first.
                    kept.next = (at + 1) % self.addresses.len();
                    return Ok(client);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            debug!(address, error = %last, "an API server is not reached");
        }
        Err(last)
    }

    fn alive(&self) -> Option<Arc<ControlClient>> {
        let client = self.kept().client.clone();
        client.filter(|client| !client.is_closed())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
