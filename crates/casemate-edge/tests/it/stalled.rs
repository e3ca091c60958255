//! What the edge holds of answers whose client takes nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use casemate_edge::RouteTarget;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy};
use tokio::task::JoinSet;

use crate::support::{ID, Stage, eventually, host};

const STREAMS: usize = 100;
/// What a client may make the edge hold of the answers on one connection.
const HELD_MAX: usize = STREAMS * 96 * 1024;

/// A service's connection without the kernel's buffers: it answers without end, and counts what was
/// taken of the answer.
pub struct Endless {
    taken: Arc<AtomicUsize>,
    head: &'static [u8],
    asked: bool,
    reader: Option<Waker>,
}

impl Endless {
    pub fn new(taken: Arc<AtomicUsize>) -> Self {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
        Self {
            taken,
            head,
            asked: false,
            reader: None,
        }
    }
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = self.head.len().min(into.remaining());
        let (now, later) = self.head.split_at(length);
        self.head = later;
        into.put_slice(now);
        let rest = into.remaining();
        into.initialize_unfilled().fill(b'x');
        into.advance(rest);
        self.taken.fetch_add(rest, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A sandbox whose port 3000 answers without end, and what was taken of it.
async fn stage() -> (Stage, Arc<AtomicUsize>) {
    let stage = Stage::new().await;
    let taken = Arc::new(AtomicUsize::new(0));
    *stage.world.endless.lock().unwrap() = Some(Arc::clone(&taken));
    let target = RouteTarget::Running {
        traffic_token: None,
        mask_host: None,
        https_ports: vec![3000],
    };
    stage.world.run(ID, target);
    let listener = stage.listener(3000).await;
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    (stage, taken)
}

fn ask(client: &http2::SendRequest<Full<Bytes>>) -> JoinSet<hyper::Result<Response<Incoming>>> {
    let request = || {
        Request::get(format!("http://{}/", host(3000)))
            .body(Full::default())
            .unwrap()
    };
    let asked = (0..STREAMS).map(|_| client.clone().send_request(request()));
    asked.collect()
}

/// What was taken once nothing moves any more; there is no event to wait for.
async fn settled(taken: &AtomicUsize) -> usize {
    let mut last = usize::MAX;
    loop {
        let now = taken.load(Ordering::SeqCst);
        if now == last && now > 0 {
            return now;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn streams_that_are_not_read_hold_little_each() {
    // Enough to learn from that there is much to read.
    const WINDOW: u32 = 1024 * 1024;
    let (stage, taken) = stage().await;
    let io = TokioIo::new(stage.connect().await);
    let (client, conn) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(u32::MAX >> 1)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(conn);
    let answers = ask(&client).join_all().await;
    let is_ok = |answer: &hyper::Result<Response<_>>| matches!(answer, Ok(a) if a.status() == 200);
    assert!(answers.iter().all(is_ok));
    let held = settled(&taken).await - STREAMS * WINDOW as usize;
    assert!(held <= HELD_MAX, "{held}");
}

/// Its windows are as large as they can be: only the connection holds it back.
#[tokio::test]
async fn a_connection_that_is_not_read_holds_little() {
    const WINDOW: u32 = u32::MAX >> 1;
    let (stage, taken) = stage().await;
    let gate = stage.world.gate.lock().await;
    let (mut from_edge, mut to_edge) = tokio::io::split(stage.stream("192.0.2.1:1"));
    let (near, far) = tokio::io::duplex(4096);
    let (mut from_client, mut to_client) = tokio::io::split(far);
    tokio::spawn(async move { copy(&mut from_client, &mut to_edge).await });
    let reading = tokio::spawn(async move { copy(&mut from_edge, &mut to_client).await });
    let (client, conn) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(TokioIo::new(near))
        .await
        .unwrap();
    tokio::spawn(conn);
    let _answers = ask(&client);
    eventually("all are asked", || stage.world.dials() == STREAMS).await;
    reading.abort();
    assert!(reading.await.is_err());
    drop(gate);
    let held = settled(&taken).await;
    assert!(held <= HELD_MAX, "{held}");
}
