//! Stands between a catalog and its Redis, and delays what it carries.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Dropping it closes all that it carries.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    delay_ms: Arc<AtomicU64>,
    _carrying: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let mut carrying = JoinSet::new();
        let delay = Arc::clone(&delay_ms);
        carrying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, port, Arc::clone(&delay)));
            }
        });
        Self {
            port: own_port,
            delay_ms,
            _carrying: carrying,
        }
    }

    /// Of each piece that Redis says.
    pub(crate) fn delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap();
        self.delay_ms.store(delay, Ordering::Relaxed);
    }
}

async fn carry(client: TcpStream, port: u16, delay_ms: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move {
        // Either end may go at any time.
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    let down = async move {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(bytes @ 1..) = from_server.read(&mut piece).await {
            let delay = Duration::from_millis(delay_ms.load(Ordering::Relaxed));
            tokio::time::sleep(delay).await;
            if to_client.write_all(&piece[..bytes]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
