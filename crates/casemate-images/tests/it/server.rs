//! A server of HTTP/1.1 that answers as a test says, whole or not.

use std::future::Future;
use std::sync::{Arc, Mutex};

use casemate_images::Digest;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::files::Files;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The first byte that is wanted.
    pub fn from(&self) -> usize {
        let range = self.header("range").unwrap_or("bytes=0-");
        let first = range.trim_start_matches("bytes=").trim_end_matches('-');
        first.parse().unwrap()
    }
}

/// What is answered.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// As many bytes of the body are sent.
    pub sent: usize,
    /// Whether the connection then stays open, silently.
    pub stalls: bool,
    /// Whether the length is said ahead.
    pub sized: bool,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: Vec::new(),
            sent: body.len(),
            body,
            stalls: false,
            sized: true,
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// An error as the specification has it.
    pub fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#))
    }

    pub fn redirect(location: impl Into<String>) -> Self {
        Self::new(307, "").header("location", location)
    }

    /// A blob or a part of it.
    pub fn blob(asked: &Asked, blob: &[u8]) -> Self {
        match asked.from() {
            0 => Self::new(200, blob),
            from => Self::new(206, &blob[from..]).header(
                "content-range",
                format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()),
            ),
        }
    }

    pub fn cut_after(mut self, sent: usize) -> Self {
        self.sent = sent.min(self.body.len());
        self
    }

    pub fn stalls_after(self, sent: usize) -> Self {
        let cut = self.cut_after(sent);
        Self {
            stalls: true,
            ..cut
        }
    }

    pub fn unsized_(self) -> Self {
        Self {
            sized: false,
            ..self
        }
    }
}

/// Serves an image at every repository and tag, as a registry does.
pub fn as_registry(files: &Files, asked: &Asked) -> Answer {
    let last = asked.path.rsplit('/').next().unwrap_or_default();
    let is_digest = last.starts_with("sha256:");
    if asked.path.contains("/manifests/") {
        if is_digest && last != Digest::of(&files.manifest).to_string() {
            return Answer::error(404, "MANIFEST_UNKNOWN");
        }
        return Answer::new(200, files.manifest.clone())
            .header("content-type", files.manifest_kind);
    }
    match files.blobs.get(last) {
        Some(blob) => Answer::blob(asked, blob),
        None => Answer::error(404, "BLOB_UNKNOWN"),
    }
}

type Handler = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// Listens on a loopback port until it is dropped.
pub struct Server {
    /// `127.0.0.1:PORT`.
    pub host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let through = |stream: TcpStream| async { Ok(stream) };
        Self::start_with(handler, through).await
    }

    /// With something between the connection and HTTP, as TLS.
    pub async fn start_with<S, F>(
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
        through: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = std::io::Result<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (handler, seen): (Handler, _) = (Arc::new(handler), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = through(stream);
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
                tokio::spawn(async move {
                    // Clients of tests hang up as they like.
                    if let Ok(stream) = stream.await {
                        let _ = serve(stream, handler, seen).await;
                    }
                });
            }
        });
        Self { host, asked, task }
    }

    pub async fn of(files: &Files) -> Self {
        let files = files.clone();
        Self::start(move |asked| as_registry(&files, asked)).await
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often a path with this in it was asked for.
    pub fn count(&self, part: &str) -> usize {
        let asked = self.asked();
        asked
            .iter()
            .filter(|asked| asked.path.contains(part))
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    handler: Handler,
    seen: Arc<Mutex<Vec<Asked>>>,
) -> std::io::Result<()> {
    let asked = read_request(&mut stream).await?;
    let answer = handler(&asked);
    seen.lock().unwrap().push(asked);
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", answer.status);
    if answer.sized {
        head.push_str(&format!("content-length: {}\r\n", answer.body.len()));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&answer.body[..answer.sent]).await?;
    stream.flush().await?;
    if answer.stalls {
        std::future::pending::<()>().await;
    }
    stream.shutdown().await
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let (method, path) = (first.next().unwrap(), first.next().unwrap());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    Ok(Asked {
        method: method.into(),
        path: path.into(),
        headers,
        body,
    })
}
