//! What one `casemate up` hands its successor over the admin socket, so that an upgrade refuses
//! nobody: the lock of the data directory, the public listeners and the egress process's sockets.
//!
//! ```text
//! successor              predecessor
//!    │── hand_over ─────────▶│  control answers what it has, and leaves the listener
//!    │                       │  the node finishes what it makes
//!    │◀─ descriptors ────────│  ends; sandboxes stay
//!    │  adopts, serves
//! ```
//!
//! Connections that come in between wait in the listener's queue, questions and connections of
//! sandboxes in those of the egress process. Until the descriptors are sent the predecessor can go on as if nobody had asked, and
//! does when its successor is gone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use casemate_linux::scm;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::admin::{self, Reply, Request};
use crate::data_dir::DataDir;
use crate::up::doors::{Door, Doors};
use crate::up::sandboxes::{DnsSockets, Egress, ProxySockets};

/// Of the message and of what its descriptors mean; another one is refused by whoever receives it.
/// Version 1 had one listener and no proxy.
const VERSION: u32 = 2;
/// The predecessor gives open requests 20 s, and what it makes some more.
const PATIENCE: Duration = Duration::from_secs(90);

/// Said beside the descriptors, which come in the order of [`Handed`].
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedOver {
    version: u32,
    /// Of the predecessor.
    pid: u32,
    /// The sockets of the egress process's proxy are there.
    #[serde(default)]
    proxy: bool,
    /// What the descriptors behind those are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    further: Vec<Door>,
}

/// What arrives.
pub struct Handed {
    pub lock: File,
    pub doors: Doors,
    pub dns: DnsSockets,
    /// `None` from a predecessor of before there was a proxy.
    pub proxy: Option<ProxySockets>,
}

/// Sends everything to a successor that waits for it.
pub async fn send(
    stream: &UnixStream,
    dir: &DataDir,
    doors: &Doors,
    egress: &Egress,
) -> anyhow::Result<()> {
    let http = doors.get(&Door::Http).context("there is no listener")?;
    let further = doors.iter().filter(|(door, _)| **door != Door::Http);
    let (further, listeners): (Vec<_>, Vec<_>) = further
        .map(|(door, listener)| (*door, listener.as_fd()))
        .unzip();
    let reply = Reply::HandedOver(HandedOver {
        version: VERSION,
        pid: std::process::id(),
        proxy: true,
        further,
    });
    let line = admin::line(&reply)?;
    let mut fds = vec![
        dir.lock().as_fd(),
        http.as_fd(),
        egress.dns.udp.as_fd(),
        egress.dns.tcp.as_fd(),
        egress.proxy.http.as_fd(),
        egress.proxy.tls.as_fd(),
    ];
    fds.extend(listeners);
    let sending = stream.async_io(Interest::WRITABLE, || scm::send(stream, &line, &fds));
    Ok(sending.await?)
}

/// Asks the platform of a data directory for everything. It has ended, or is about to, when this
/// returns; `None` when it did before it gave anything.
pub async fn ask(socket: &Path) -> anyhow::Result<Option<Handed>> {
    let mut buffer = [0; 4096];
    let receiving = tokio::time::timeout(PATIENCE, receive(socket, &mut buffer)).await;
    let received = receiving.context("the platform takes too long to hand over")?;
    let (length, fds) = match received {
        Ok((0, _)) => return Ok(None),
        Ok(received) => received,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("ask at {}", socket.display())),
    };
    let reply = serde_json::from_slice(&buffer[..length]);
    let said = match reply.context("the platform answered something else")? {
        Reply::HandedOver(said) => said,
        Reply::Failed(why) => bail!("the platform that runs does not hand over: {why}"),
        Reply::Status(_) | Reply::Space(_) | Reply::Ending => {
            bail!("the platform answered something else")
        }
    };
    ensure!(
        (1..=VERSION).contains(&said.version),
        "the platform that runs hands over in version {}, this one takes {VERSION}: stop it first",
        said.version
    );
    // In the order in which they were sent.
    let mut fds = fds.into_iter();
    let mut next = || fds.next().context("the platform sent too few descriptors");
    let (lock, listener, udp, tcp) = (next()?, next()?, next()?, next()?);
    let proxy = match said.proxy {
        true => Some(ProxySockets {
            http: next()?,
            tls: next()?,
        }),
        false => None,
    };
    let mut doors = Doors::from([(Door::Http, listener.into())]);
    for door in said.further {
        doors.insert(door, next()?.into());
    }
    tracing::info!(
        predecessor = said.pid,
        "took over from process {}",
        said.pid
    );
    Ok(Some(Handed {
        lock: lock.into(),
        doors,
        dns: DnsSockets { udp, tcp },
        proxy,
    }))
}

async fn receive(socket: &Path, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = admin::line(&Request::HandOver).map_err(io::Error::other)?;
    stream.write_all(&request).await?;
    let receiving = stream.async_io(Interest::READABLE, || scm::recv(&stream, buffer));
    receiving.await
}

fn is_gone(error: &io::Error) -> bool {
    let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    nobody.contains(&error.kind()) || admin::is_end(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_first_version_said_is_understood() {
        let first: HandedOver = serde_json::from_str(r#"{"version":1,"pid":7}"#).unwrap();
        assert!(first.further.is_empty() && !first.proxy);
        let second = r#"{"version":2,"pid":7,"proxy":true,"further":["https","redirect"]}"#;
        let said: HandedOver = serde_json::from_str(second).unwrap();
        assert_eq!(said.further, [Door::Https, Door::Redirect]);
        assert_eq!(serde_json::to_string(&said).unwrap(), second);
    }
}
