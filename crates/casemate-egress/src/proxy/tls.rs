//! TLS: the name in the hello decides, and the bytes go through as they are.

use std::io;

use casemate_types::network::DomainName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::hello::{HELLO_BYTES_MAX, Unfit, server_name};
use super::watched::{Activity, Watched};
use super::{COPY_BYTES, Caller, Refused};

const PORT: u16 = 443;
/// What a refused client is told: a fatal alert, so that its error says more than that a connection
/// was closed.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
/// The same where the name is allowed and cannot be reached.
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// Carries one connection to its end.
pub(crate) async fn serve(mut stream: TcpStream, caller: Caller) {
    let config = caller.resolver.config();
    let hello = tokio::select! {
        hello = timeout(config.head_timeout, read_hello(&mut stream)) => hello,
        () = caller.slot.forbids(|policy| !policy.domains.is_empty()) => return,
    };
    let (name, bytes) = match hello {
        Ok(Ok(Ok(hello))) => hello,
        Ok(Ok(Err(unfit))) => {
            tracing::debug!(slot.ip = %caller.ip, ?unfit, "refused a hello");
            return refuse(stream, &ACCESS_DENIED).await;
        }
        Ok(Err(_)) | Err(_) => return,
    };
    let policy = match caller.policy_for(&name) {
        Ok(policy) => policy,
        Err(refused) => return caller.refuse_name(stream, &name, refused).await,
    };
    let activity = Activity::new();
    let carried = async {
        match caller.dial(&policy, &name, PORT).await {
            Ok(server) => carry(Watched::new(stream, activity.clone()), server, bytes).await,
            Err(refused) => caller.refuse_name(stream, &name, refused).await,
        }
    };
    tokio::select! {
        () = carried => {}
        () = activity.idle(config.proxied_idle_timeout) => {}
        () = caller.slot.forbids(|policy| policy.opens(&name)) => {}
    }
}

impl Caller {
    async fn refuse_name(&self, stream: TcpStream, name: &DomainName, refused: Refused) {
        tracing::debug!(slot.ip = %self.ip, %name, ?refused, "refused a TLS connection");
        let alert = match refused {
            Refused::NotAllowed | Refused::Closed => &ACCESS_DENIED,
            Refused::Unknown | Refused::Unreachable => &INTERNAL_ERROR,
        };
        refuse(stream, alert).await;
    }
}

/// `first`: what the client has said already. However it ends, both ends are closed.
async fn carry(mut client: Watched<TcpStream>, mut server: TcpStream, first: Vec<u8>) {
    if server.write_all(&first).await.is_err() {
        return;
    }
    drop(first);
    let _ = copy_bidirectional_with_sizes(&mut client, &mut server, COPY_BYTES, COPY_BYTES).await;
}

/// The name, and all that was read to find it.
async fn read_hello(stream: &mut TcpStream) -> io::Result<Result<(DomainName, Vec<u8>), Unfit>> {
    let mut bytes = Vec::with_capacity(2048);
    loop {
        let needed = match server_name(&bytes) {
            Ok(name) => return Ok(Ok((name, bytes))),
            Err(Unfit::More(needed)) => needed,
            Err(unfit) => return Ok(Err(unfit)),
        };
        // It is looked at again only when that can tell more, twice for each record, of which
        // there are few: bytes that come one by one cost no more than those that come together.
        while bytes.len() < needed {
            let room = HELLO_BYTES_MAX.saturating_sub(bytes.len()) as u64;
            if (&mut *stream).take(room).read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A client that does not read it is refused all the same.
async fn refuse(mut stream: TcpStream, alert: &[u8]) {
    let _ = stream.write_all(alert).await;
    let _ = stream.shutdown().await;
}
