//! Asking a name server: one socket for each question, so that number *and* port are a guess for
//! whoever wants to answer in its place.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::message::{Code, HEADER_LEN, Query};

const PORT: u16 = 53;
/// The largest answer taken over UDP; a larger one makes the asker come again over TCP.
const UDP_ANSWER_BYTES_MAX: usize = 4096;

/// How the asker came; its answer must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Asks one server after the other until one answers in time. `SERVFAIL` when none does.
pub(crate) async fn ask(
    query: &Query,
    servers: &[IpAddr],
    transport: Transport,
    each: Duration,
) -> Vec<u8> {
    for server in servers {
        let server = SocketAddr::new(*server, PORT);
        let asked = match transport {
            Transport::Udp => timeout(each, udp(query, server)).await,
            Transport::Tcp => timeout(each, tcp(query, server)).await,
        };
        match asked {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => tracing::debug!(%server, %error, "name server failed"),
            Err(_) => tracing::debug!(%server, "name server did not answer in time"),
        }
    }
    query.answered(Code::ServerFailure)
}

async fn udp(query: &Query, server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // The kernel picks a random port, and lets through only what comes from the server.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = random_id()?;
    socket.send(&query.numbered(id)).await?;
    let mut buffer = vec![0; UDP_ANSWER_BYTES_MAX + 1];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let cut = len > UDP_ANSWER_BYTES_MAX;
        // What does not answer the question is passed over, not an end: it may be forged.
        if let Some(answer) = query.adopt(id, buffer[..len].to_vec()) {
            return Ok(if cut {
                query.answered_truncated()
            } else {
                answer
            });
        }
    }
}

async fn tcp(query: &Query, server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random_id()?;
    write(&mut stream, &query.numbered(id)).await?;
    let answer = read(&mut stream, usize::from(u16::MAX)).await?;
    answer
        .and_then(|answer| query.adopt(id, answer))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads one message with its length; `None` is the orderly end of the stream.
pub(crate) async fn read(stream: &mut TcpStream, max: usize) -> io::Result<Option<Vec<u8>>> {
    let len = match stream.read_u16().await {
        Ok(len) => usize::from(len),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if !(HEADER_LEN..=max).contains(&len) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes one message with its length in one go.
pub(crate) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}

fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_be_bytes(bytes))
}
