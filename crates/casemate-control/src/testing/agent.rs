//! What answers in the fake node's sandboxes: enough of an agent to start a template in.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// One for all sandboxes. It lives as long as the process.
#[derive(Clone)]
pub(super) struct FakeAgent {
    pub(super) address: SocketAddr,
    said: Arc<Mutex<Said>>,
    changed: Arc<Condvar>,
}

#[derive(Default)]
struct Said {
    /// What starts fail of.
    failure: Option<String>,
    refuses_init: bool,
    /// Hangs up, whatever it is asked.
    is_gone: bool,
    inits: Vec<Value>,
}

impl FakeAgent {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let agent = Self {
            address: listener.local_addr().expect("an address"),
            said: Arc::default(),
            changed: Arc::default(),
        };
        let answering = agent.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let agent = answering.clone();
                thread::spawn(move || agent.serve(stream));
            }
        });
        agent
    }

    pub(super) fn fail_starts(&self, failure: Option<&str>) {
        self.lock().failure = failure.map(str::to_owned);
        self.changed.notify_all();
    }

    pub(super) fn go(&self) {
        self.lock().is_gone = true;
        self.changed.notify_all();
    }

    pub(super) fn refuse_inits(&self) {
        self.lock().refuses_init = true;
    }

    pub(super) fn inits(&self) -> Vec<Value> {
        self.lock().inits.clone()
    }

    /// One request; whoever hangs up is done.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let (mut first, mut length) = (String::new(), None);
        reader.read_line(&mut first).ok()?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse::<usize>().ok();
            }
        }
        let target = first.split(' ').nth(1)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let answer = match path {
            "/startup" => {
                let waits = query.contains("while=ready");
                let mut said = self.lock();
                if waits {
                    let is_ready = |said: &mut Said| said.failure.is_none() && !said.is_gone;
                    let waited = self.changed.wait_timeout_while(said, WATCH, is_ready);
                    said = waited.expect("no holder of this lock panics").0;
                }
                match &said.failure {
                    _ if said.is_gone => return None,
                    None => serde_json::json!({"state": "ready"}),
                    Some(why) => serde_json::json!({"state": "failed", "message": why}),
                }
            }
            "/init" => {
                let body = body(&mut reader, length)?;
                if self.lock().refuses_init {
                    return None;
                }
                self.lock().inits.push(serde_json::from_slice(&body).ok()?);
                Value::Null
            }
            "/health" => Value::Null,
            _ => return None,
        };
        let text = answer.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            text.len()
        );
        (&stream).write_all((head + &text).as_bytes()).ok()
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().expect("no holder of this lock panics")
    }
}

/// As long as the real one makes whoever watches wait.
const WATCH: Duration = Duration::from_secs(60);

/// Of a known length, or in chunks.
fn body(reader: &mut impl BufRead, length: Option<usize>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = length {
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
        return Some(body);
    }
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
