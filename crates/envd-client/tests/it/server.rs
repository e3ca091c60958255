//! A server that answers each path with what the test wrote, in the pieces that it wrote. The tests
//! of `casemate-client` use it too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// One answer: status, headers, pieces of the body. A body that is `Cut` breaks off after them.
#[derive(Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, &'static str)>,
    pub pieces: Vec<Vec<u8>>,
    pub cut: bool,
    /// Answer before the request's body has ended.
    pub early: bool,
    /// Neither go on nor end after the pieces.
    pub hangs: bool,
}

impl Answer {
    pub fn ok(pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            status: 200,
            pieces: pieces.into_iter().collect(),
            ..Self::default()
        }
    }

    pub fn status(status: u16, body: &str) -> Self {
        Self {
            status,
            pieces: vec![body.as_bytes().to_vec()],
            ..Self::default()
        }
    }
}

/// A request as it arrived.
#[derive(Clone)]
pub struct Seen {
    pub line: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Clone)]
pub struct Server {
    /// `http://host:port`.
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    /// Requests whose bodies broke off.
    pub cut_off: Arc<AtomicUsize>,
}

impl Server {
    /// Answers `METHOD /path?query`; several answers for one line are given in turn.
    pub async fn start(answers: Vec<(&'static str, Answer)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self {
            url,
            seen: Arc::default(),
            connections: Arc::default(),
            cut_off: Arc::default(),
        };
        let mut table: HashMap<&str, Vec<Answer>> = HashMap::new();
        for (line, answer) in answers {
            table.entry(line).or_default().insert(0, answer);
        }
        let table = Arc::new(Mutex::new(table));
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                let (server, table) = (accepting.clone(), table.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request| server.answer(request, &table));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        table: &Mutex<HashMap<&'static str, Vec<Answer>>>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, std::io::Error>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let line = format!("{} {}", head.method, head.uri);
        let answer = table
            .lock()
            .unwrap()
            .get_mut(line.as_str())
            .and_then(|answers| answers.pop())
            .unwrap_or_else(|| Answer::status(418, &format!("no answer for {line}")));
        let body = match answer.early {
            true => Bytes::new(),
            false => match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => {
                    self.cut_off.fetch_add(1, Ordering::Relaxed);
                    return Err(std::io::Error::other(error));
                }
            },
        };
        self.seen.lock().unwrap().push(Seen {
            line,
            headers: head.headers,
            body,
        });
        let (sender, mut receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for piece in answer.pieces {
                let _ = sender.send(Ok(Frame::data(Bytes::from(piece)))).await;
                // Let the piece go out by itself.
                tokio::task::yield_now().await;
            }
            if answer.hangs {
                std::future::pending::<()>().await;
            }
            if answer.cut {
                let _ = sender.send(Err(std::io::Error::other("cut"))).await;
            }
        });
        let stream = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut response = Response::builder().status(answer.status);
        for (name, value) in answer.headers {
            response = response.header(name, value);
        }
        Ok(response
            .body(StreamBody::new(stream).boxed_unsync())
            .unwrap())
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
