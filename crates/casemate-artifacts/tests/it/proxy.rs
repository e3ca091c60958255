//! What stands between client and bucket, and fails as it is told to.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It comes later.
    Late(Duration),
    /// The bucket is not asked, and this is the answer, with a code and `Retry-After` in seconds.
    Status(u16, &'static str, Option<u64>),
    /// It goes to the bucket, and this much of the answer comes back.
    Cut(usize),
    /// A bit in the middle of its body is another.
    Flip,
    /// The body has half its length, and says so.
    Half,
    /// It announces more than anybody could hold.
    Endless,
}

struct Rule {
    method: &'static str,
    /// In the path.
    part: String,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    seen: Vec<(String, String)>,
}

/// Ends with the test's process; after [`Proxy::stop`] nobody is let in.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    stopped: Arc<Mutex<bool>>,
}

impl Proxy {
    pub fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let stopped = Arc::new(Mutex::new(false));
        let (shared, ended) = (Arc::clone(&state), Arc::clone(&stopped));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if *ended.lock().unwrap() {
                    return;
                }
                let (Ok(client), state) = (client, Arc::clone(&shared)) else {
                    continue;
                };
                // A connection that fails is what a client must bear.
                std::thread::spawn(move || serve(client, upstream, &state));
            }
        });
        Self {
            address,
            state,
            stopped,
        }
    }

    /// The next `times` requests of this method whose path has this part meet the fault.
    pub fn fail(&self, method: &'static str, part: &str, times: usize, fault: Fault) {
        let rule = Rule {
            method,
            part: part.to_owned(),
            times,
            fault,
        };
        self.state.lock().unwrap().rules.push(rule);
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().rules.clear();
    }

    /// How many requests of this method had this part in their path, since it was last asked.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let seen = std::mem::take(&mut self.state.lock().unwrap().seen);
        seen.iter()
            .filter(|(m, path)| m == method && path.contains(part))
            .count()
    }

    pub fn stop(&self) {
        *self.stopped.lock().unwrap() = true;
        let _ = TcpStream::connect(self.address);
    }
}

/// One request for each connection.
fn serve(mut client: TcpStream, upstream: SocketAddr, state: &Mutex<State>) -> io::Result<()> {
    let (head, body) = request(&mut client)?;
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let is_head = method == "HEAD";
    let fault = {
        let mut state = state.lock().unwrap();
        let meets =
            |rule: &&mut Rule| rule.times > 0 && rule.method == method && path.contains(&rule.part);
        let rule = state.rules.iter_mut().find(meets);
        let fault = rule.map(|rule| {
            rule.times -= 1;
            rule.fault.clone()
        });
        state.seen.push((method, path));
        fault
    };
    match fault {
        Some(Fault::Status(status, code, after)) => {
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
            let after = after
                .map(|s| format!("Retry-After: {s}\r\n"))
                .unwrap_or_default();
            let len = body.len();
            let head = format!("HTTP/1.1 {status} x\r\n{after}Content-Length: {len}\r\n");
            return write!(client, "{head}Connection: close\r\n\r\n{body}");
        }
        Some(Fault::Endless) => {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n";
            return client.write_all(head.as_bytes());
        }
        Some(Fault::Late(time)) => std::thread::sleep(time),
        _ => {}
    }
    let (head, mut content) = answer(upstream, &head, &body)?;
    match fault {
        Some(Fault::Flip) => {
            let middle = content.len() / 2;
            content[middle] ^= 1;
        }
        Some(Fault::Half) => content.truncate(content.len() / 2),
        _ => {}
    }
    let mut lines: Vec<_> = head
        .split("\r\n")
        .filter(|line| !is_framing(line))
        .collect();
    let length = format!("Content-Length: {}", content.len());
    // What answers a `HEAD` has the length of a body that does not come.
    match is_head {
        true => lines.extend(
            head.split("\r\n")
                .filter(|line| named(line, "content-length")),
        ),
        false => lines.push(&length),
    }
    let mut whole = lines.join("\r\n").into_bytes();
    whole.extend_from_slice(b"\r\nConnection: close\r\n\r\n");
    whole.extend_from_slice(&content);
    if let Some(Fault::Cut(len)) = fault {
        whole.truncate(len);
    }
    client.write_all(&whole)
}

fn request(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let (head, mut body) = head(client)?;
    let length = head
        .split("\r\n")
        .find(|line| named(line, "content-length"));
    let length = length.and_then(|line| line.split(':').nth(1)?.trim().parse().ok());
    let length: usize = length.unwrap_or_default();
    let read = body.len();
    body.resize(length.max(read), 0);
    client.read_exact(&mut body[read..])?;
    Ok((head, body))
}

/// The head without its empty line, and what came of the body with it.
fn head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = read.split_off(end + 4);
            read.truncate(end);
            return Ok((String::from_utf8_lossy(&read).into_owned(), body));
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => read.extend_from_slice(&buffer[..len]),
        }
    }
}

fn answer(upstream: SocketAddr, head: &str, body: &[u8]) -> io::Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(upstream)?;
    let lines: Vec<_> = head
        .split("\r\n")
        .filter(|line| !named(line, "connection"))
        .collect();
    stream.write_all(format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n")).as_bytes())?;
    stream.write_all(body)?;
    let (head, mut content) = self::head(&mut stream)?;
    stream.read_to_end(&mut content)?;
    if head
        .split("\r\n")
        .any(|line| named(line, "transfer-encoding"))
    {
        content = unchunked(&content);
    }
    Ok((head, content))
}

fn unchunked(mut chunks: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = chunks.windows(2).position(|two| two == b"\r\n") {
        let length = std::str::from_utf8(&chunks[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            break;
        }
        content.extend_from_slice(&chunks[end + 2..end + 2 + length]);
        chunks = &chunks[end + 4 + length..];
    }
    content
}

fn is_framing(line: &str) -> bool {
    ["content-length", "transfer-encoding", "connection"]
        .iter()
        .any(|name| named(line, name))
}

fn named(line: &str, name: &str) -> bool {
    line.split_once(':')
        .is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
}
