//! Whether the front door says that a sandbox can be created.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits until `/ready` answers 200. The answer comes from our own control process, but that one
/// reads clients' bytes: only the status line is looked at, and only its first bytes.
pub async fn wait(listen: SocketAddr) {
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            "::1".parse().expect("a literal address")
        });
    }
    loop {
        let look = tokio::time::timeout(LOOK_TIMEOUT, look(address));
        if look.await.is_ok_and(|answer| answer.unwrap_or(false)) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(&status == b"HTTP/1.1 200")
}
