//! What the edge adds to a round trip, beside the same round trip without it.
//!
//! `cargo run --release -p casemate-edge --example latency [requests] [workers]`. The service answers 204 at
//! once and has a thread of its own, as envd has; the client is a blocking socket, so that nothing
//! of ours is measured twice.

mod one_service;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as ClientStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use casemate_edge::{Edge, EdgeConfig, InvalidHost};
use one_service::OneService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

fn main() -> Result<()> {
    let argument = |n: usize, default: usize| match std::env::args().nth(n) {
        Some(count) => count
            .parse()
            .context("a number of requests, then of workers"),
        None => Ok(default),
    };
    let (requests, workers) = (argument(1, 20_000)?, argument(2, 2)?);
    let service = service()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let edge_addr = listener.local_addr()?;
    let world = Arc::new(OneService(service));
    let edge = Edge::new(
        EdgeConfig::new("demo.test"),
        world.clone(),
        world,
        InvalidHost,
    );
    runtime.spawn(async move { edge.serve(listener, CancellationToken::new()).await });

    println!("{requests} requests one after the other, {workers} workers; microseconds");
    let direct = row("direct", service, 49983, requests, None)?;
    row(
        "edge, envd (kept connection)",
        edge_addr,
        49983,
        requests,
        Some(direct),
    )?;
    row(
        "edge, a user's port (new connection)",
        edge_addr,
        3000,
        requests,
        Some(direct),
    )?;
    row("direct again", service, 49983, requests, Some(direct))?;
    Ok(())
}

/// Measures one way and prints it; gives its median.
fn row(
    name: &str,
    to: SocketAddr,
    port: u16,
    requests: usize,
    floor: Option<Duration>,
) -> Result<Duration> {
    let mut stream = ClientStream::connect(to)?;
    stream.set_nodelay(true)?;
    let ask = format!(
        "GET /health HTTP/1.1\r\nhost: {port}-iabc.demo.test\r\nuser-agent: e2b-python-sdk/2.63.0\r\n\
         accept: */*\r\ne2b-sandbox-id: iabc\r\ne2b-sandbox-port: {port}\r\nx-access-token: secret\r\n\r\n"
    );
    let mut times = Vec::with_capacity(requests);
    let warm_up = requests / 10;
    for n in 0..requests + warm_up {
        let begun = Instant::now();
        stream.write_all(ask.as_bytes())?;
        read_head(&mut stream)?;
        if n >= warm_up {
            times.push(begun.elapsed());
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let median = at(50);
    let added = floor.map_or_else(String::new, |floor| {
        format!(
            "  +{:.1} over direct, {:.2} times",
            micros(median.saturating_sub(floor)),
            micros(median) / micros(floor)
        )
    });
    println!(
        "{name:38} p50 {:7.1}  p99 {:7.1}{added}",
        micros(median),
        micros(at(99))
    );
    Ok(median)
}

fn read_head(stream: &mut ClientStream) -> Result<()> {
    let mut buf = [0u8; 1024];
    let mut filled = 0;
    while !buf[..filled].ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buf[filled..])?;
        ensure!(read > 0, "the connection was closed");
        filled += read;
    }
    ensure!(
        buf.starts_with(b"HTTP/1.1 204"),
        "{}",
        String::from_utf8_lossy(&buf[..filled])
    );
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A service on a thread of its own that answers each head at once.
fn service() -> Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let addr = listener.local_addr()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let mut head = Vec::new();
                    let mut buf = [0u8; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buf).await {
                        head.extend_from_slice(&buf[..read]);
                        if head.ends_with(b"\r\n\r\n") {
                            head.clear();
                            if stream.write_all(ANSWER).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
    });
    Ok(addr)
}
