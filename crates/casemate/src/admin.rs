//! The node's own socket for `casemate status`, `casemate down` and a successor: a Unix socket in
//! root's folder, one JSON line each way.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::space::Space;
use anyhow::{Context, bail};
use casemate_rpc::NodeInfo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::hand_over::HandedOver;

/// Longest line; a longer one ends the conversation.
const LINE_BYTES_MAX: u64 = 256 * 1024;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Status,
    /// What takes space in the data directory.
    Space,
    /// End every sandbox, then the platform.
    Down,
    /// Give all listeners to the caller, and end; sandboxes stay.
    HandOver,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub url: String,
    pub domain: String,
    pub instance: String,
    /// Not said by platforms that cannot hand over.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    pub ready: bool,
    pub node: NodeInfo,
    /// Process ids of our children by role.
    pub processes: BTreeMap<String, u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Status(Box<Status>),
    Space(Box<Space>),
    /// All sandboxes are gone; the platform is ending.
    Ending,
    /// With the descriptors beside it.
    HandedOver(HandedOver),
    Failed(String),
}

/// Listens at `path`; a socket that a dead process left is replaced.
pub fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("replace {}", path.display()));
        }
        _ => {}
    }
    UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))
}

/// Reads the one request of a caller.
pub async fn read_request(stream: &mut UnixStream) -> anyhow::Result<Request> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream).take(LINE_BYTES_MAX);
    tokio::time::timeout(Duration::from_secs(5), reader.read_line(&mut line)).await??;
    Ok(serde_json::from_str(&line)?)
}

pub fn line(message: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

pub async fn write(stream: &mut UnixStream, message: &impl Serialize) -> anyhow::Result<()> {
    Ok(stream.write_all(&line(message)?).await?)
}

/// Asks the node of a data directory; `None` when none runs.
pub async fn ask(path: &Path, request: Request) -> anyhow::Result<Option<Reply>> {
    let mut stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
            io::ErrorKind::PermissionDenied => bail!("this needs root: run it with sudo"),
            _ => return Err(error).with_context(|| format!("connect to {}", path.display())),
        },
    };
    write(&mut stream, &request).await?;
    let mut answer = String::new();
    BufReader::new(stream)
        .take(LINE_BYTES_MAX)
        .read_line(&mut answer)
        .await?;
    Ok(Some(
        serde_json::from_str(&answer).context("the platform ended before it answered")?,
    ))
}
