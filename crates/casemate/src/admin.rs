//! The node's own socket for `casemate status`, `casemate down` and a successor: a Unix socket in
//! root's folder, one JSON line each way.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::config::Role;
use crate::space::Space;
use anyhow::{Context, bail};
use casemate_rpc::NodeInfo;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::hand_over::HandedOver;
use crate::up::doors::Door;

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

fn yes() -> bool {
    true
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Not said by earlier ones.
    #[serde(default)]
    pub role: Role,
    pub pid: u32,
    pub url: String,
    pub domain: String,
    pub instance: String,
    /// Not said by platforms that cannot hand over.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Where each listener is. Earlier platforms have the one above alone.
    #[serde(default)]
    pub doors: BTreeMap<Door, SocketAddr>,
    /// It was once ready to create sandboxes.
    pub ready: bool,
    /// API and edge answer. Earlier platforms do not say it.
    #[serde(default = "yes")]
    pub answers: bool,
    /// It answers also while it ends sandboxes or measures files. Earlier platforms do not.
    #[serde(default)]
    pub answers_beside: bool,
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

/// Whether a caller still waits: one that gave us up while we were stopped was told that nothing
/// happened.
pub fn waits(stream: &UnixStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    // A caller says nothing more, so that there is something to read means its end.
    matches!(
        rustix::net::recv(stream, &mut [0; 1], flags),
        Err(Errno::AGAIN)
    )
}

pub fn line(message: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

pub async fn write(stream: &mut UnixStream, message: &impl Serialize) -> anyhow::Result<()> {
    Ok(stream.write_all(&line(message)?).await?)
}

/// How long a platform may take to say how it is. One that works does so at once; one that ends, or
/// hands over, takes longer, and so does one that was stopped (`kill -STOP`).
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at a platform that takes its time.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Files are measured one after the other.
const MEASURE_PATIENCE: Duration = Duration::from_secs(300);

/// Asks the node of a data directory; `None` when none runs, or it ends without an answer.
pub async fn ask(path: &Path, request: Request) -> anyhow::Result<Option<Reply>> {
    let Some(mut stream) = connect(path).await? else {
        return Ok(None);
    };
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let answer = exchange(&mut stream, request);
    let answer = match request.patience() {
        None => answer.await,
        Some(patience) => match tokio::time::timeout(patience, answer).await {
            Ok(answer) => answer,
            Err(_) => bail!("{}", silent(pid, patience)),
        },
    };
    match answer {
        Ok(line) if line.is_empty() => Ok(None),
        Ok(line) => Ok(Some(
            serde_json::from_str(&line).context("the platform answered something else")?,
        )),
        Err(error) if is_end(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("ask at {}", path.display())),
    }
}

impl Request {
    /// `None` where it takes as long as it takes.
    fn patience(self) -> Option<Duration> {
        match self {
            Self::Status => Some(PATIENCE),
            Self::Space => Some(MEASURE_PATIENCE),
            Self::Down | Self::HandOver => None,
        }
    }
}

/// Refuses a platform that does not say how it is within [`PATIENCE`]; for what may take long.
pub async fn must_answer(path: &Path) -> anyhow::Result<()> {
    ask(path, Request::Status).await.map(drop)
}

/// Asks for what takes as long as it takes, of a platform that says meanwhile how it is.
pub async fn ask_watching(path: &Path, request: Request) -> anyhow::Result<Option<Reply>> {
    tokio::select! {
        answer = ask(path, request) => answer,
        silent = until_silent(path) => Err(silent),
    }
}

/// Until a platform that works on what it was asked for no longer says how it is.
async fn until_silent(path: &Path) -> anyhow::Error {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if let Err(silent) = must_answer(path).await {
            return silent;
        }
    }
}

async fn connect(path: &Path) -> anyhow::Result<Option<UnixStream>> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            io::ErrorKind::PermissionDenied => bail!("this needs root: run it with sudo"),
            _ => Err(error).with_context(|| format!("connect to {}", path.display())),
        },
    }
}

async fn exchange(stream: &mut UnixStream, request: Request) -> io::Result<String> {
    stream
        .write_all(&line(&request).map_err(io::Error::other)?)
        .await?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream).take(LINE_BYTES_MAX);
    reader.read_line(&mut answer).await?;
    Ok(answer)
}

/// Whether whoever we spoke to ended: reset where our request was not read yet.
pub fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn silent(pid: Option<i32>, patience: Duration) -> String {
    let seconds = patience.as_secs();
    match pid {
        Some(pid) => format!(
            "the platform's process {pid} does not answer for {seconds} s (`ps -o stat= {pid}` \
             says T where it was stopped, which `kill -CONT {pid}` ends)"
        ),
        None => format!("the platform's process does not answer for {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a listener that never accepts, as that of a stopped process.
    #[tokio::test(start_paused = true)]
    async fn a_platform_that_does_not_answer_is_named_and_not_waited_for() {
        let dir = std::env::temp_dir().join(format!("casemate-admin-{}", std::process::id()));
        let socket = listen(&dir).unwrap();
        let named = format!("process {} does not answer", std::process::id());
        for request in [Request::Status, Request::Space] {
            let error = ask(&dir, request).await.unwrap_err().to_string();
            assert!(error.contains(&named), "{error}");
        }
        let error = ask_watching(&dir, Request::Down).await.unwrap_err();
        assert!(error.to_string().contains(&named), "{error}");
        drop(socket);
        assert!(ask(&dir, Request::Status).await.unwrap().is_none());
        std::fs::remove_file(dir).unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_is_gone_is_not_served() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs
            .write_all(&line(&Request::Down).unwrap())
            .await
            .unwrap();
        assert!(matches!(
            read_request(&mut ours).await.unwrap(),
            Request::Down
        ));
        assert!(waits(&ours));
        drop(theirs);
        assert!(!waits(&ours));
    }
}
