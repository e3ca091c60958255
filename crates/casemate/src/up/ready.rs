//! Whether the front door answers, and says that a sandbox can be created.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use casemate_rpc::NodePort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// The same where a person waits for the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether it answers at all.
pub async fn answers(listen: SocketAddr) -> bool {
    let look = tokio::time::timeout(ANSWER_TIMEOUT, look(reachable(listen)));
    look.await.is_ok_and(|answer| answer.is_ok())
}

/// Waits until a node can make sandboxes, and whoever looks after it is answered.
pub async fn answer(listen: SocketAddr, node: &impl NodePort) {
    let can_make = async || node.info().await.is_ok_and(|info| info.ready);
    while !(can_make().await && answers(listen).await) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until `/ready` answers 200. The answer comes from our own control process, but that one
/// reads clients' bytes: only the status line is looked at, and only its first bytes.
pub async fn wait(listen: SocketAddr) {
    let address = reachable(listen);
    loop {
        let look = tokio::time::timeout(LOOK_TIMEOUT, look(address));
        if look.await.is_ok_and(|answer| answer.unwrap_or(false)) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn look(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(&status == b"HTTP/1.1 200")
}
