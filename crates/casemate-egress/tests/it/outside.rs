//! What lies beyond the host: servers of names, in a namespace of their own behind a link. Nothing
//! leads out of either, so every address here is the test's own.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use casemate_linux::net::{netns_create, netns_enter};

use crate::world::{FIRST, answer_all, asked_for, ip, name_server};

const LINK_HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Public-looking servers.
pub const GOOD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub const EVIL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
/// What sandboxes may not reach, and this process could.
pub const CLOSED: [&str; 7] = [
    "10.9.8.7",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.5.5",
    "192.0.0.192",
    "192.168.7.7",
];
const HINT: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(3);

/// What servers received.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<Connection>>>);

/// A server's address, and what came.
type Connection = (Ipv4Addr, Vec<u8>);

impl Seen {
    /// What arrived at an address so far.
    pub fn at(&self, address: Ipv4Addr) -> Vec<u8> {
        self.connections(address).concat()
    }

    pub fn text_at(&self, address: Ipv4Addr) -> String {
        String::from_utf8_lossy(&self.at(address)).into_owned()
    }

    pub fn connections(&self, address: Ipv4Addr) -> Vec<Vec<u8>> {
        let all = self.0.lock().unwrap();
        let its = all.iter().filter(|(at, _)| *at == address);
        its.map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Waits for something to arrive.
    #[track_caller]
    pub fn wait(&self, address: Ipv4Addr, bytes: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        while !contains(&self.at(address), bytes) {
            assert!(Instant::now() < deadline, "did not arrive at {address}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A connection, by its number.
    fn begin(&self, address: Ipv4Addr) -> usize {
        let mut all = self.0.lock().unwrap();
        all.push((address, Vec::new()));
        all.len() - 1
    }

    fn note(&self, connection: usize, bytes: &[u8]) {
        self.0.lock().unwrap()[connection].1.extend(bytes);
    }
}

pub fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

/// To be called after [`crate::world::start`]: links the host with the outside, where each address
/// has a server on port 80 and on 443, and says what they see.
pub fn outside() -> Seen {
    let outside = thread::spawn(|| netns_create().unwrap()).join().unwrap();
    ip("link add up0 type veth peer name out0");
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            netns_enter(&outside).unwrap();
            Command::new("sleep").arg("60").spawn().unwrap()
        });
        // `ip` names a namespace by a process in it.
        let mut holder = entered.join().unwrap();
        ip(&format!("link set out0 netns {}", holder.id()));
        holder.kill().unwrap();
        holder.wait().unwrap();
    });
    ip(&format!("addr add {LINK_HOST}/24 dev up0"));
    ip("link set up0 up");
    let addresses: Vec<Ipv4Addr> = CLOSED
        .iter()
        .map(|text| text.parse().unwrap())
        .chain([GOOD, EVIL])
        .collect();
    for address in &addresses {
        ip(&format!(
            "route add {address}/32 via 203.0.113.2 dev up0 onlink"
        ));
    }
    let seen = Seen::default();
    let noting = seen.clone();
    thread::spawn(move || {
        netns_enter(&outside).unwrap();
        ip("link set lo up");
        ip("addr add 203.0.113.2/24 dev out0");
        ip("link set out0 up");
        for address in addresses {
            ip(&format!("addr add {address}/32 dev lo"));
            for (port, serve) in [
                (80, serve_http as fn(TcpStream, Ipv4Addr, Seen)),
                (443, serve_tls),
            ] {
                let listener = TcpListener::bind((address, port)).unwrap();
                let seen = noting.clone();
                thread::spawn(move || {
                    for stream in listener.incoming() {
                        let (stream, seen) = (stream.unwrap(), seen.clone());
                        thread::spawn(move || serve(stream, address, seen));
                    }
                });
            }
        }
    })
    .join()
    .unwrap();
    seen
}

/// Says back what it hears, and at the end that it was one.
fn serve_tls(mut stream: TcpStream, address: Ipv4Addr, seen: Seen) {
    let connection = seen.begin(address);
    let mut buffer = [0; 4096];
    while let Ok(len) = stream.read(&mut buffer)
        && len > 0
    {
        seen.note(connection, &buffer[..len]);
        if stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
    let _ = stream.write_all(b"the end");
    let _ = stream.shutdown(Shutdown::Write);
}

/// Answers every head that comes on a connection, as a server does that keeps connections open; a
/// WebSocket says back what it hears. As many informational answers come before as the path says.
fn serve_http(mut stream: TcpStream, address: Ipv4Addr, seen: Seen) {
    let connection = seen.begin(address);
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    let mut switched = false;
    while let Ok(len) = stream.read(&mut buffer)
        && len > 0
    {
        seen.note(connection, &buffer[..len]);
        if switched {
            let _ = stream.write_all(&buffer[..len]);
            continue;
        }
        heard.extend_from_slice(&buffer[..len]);
        while let Some(at) = heard.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = heard.drain(..at + 4).collect();
            let hints = hints_asked_for(&head);
            let began = (0..hints).all(|_| stream.write_all(HINT).is_ok());
            if !began {
                return;
            }
            let answer = if contains(&head.to_ascii_lowercase(), b"upgrade: websocket") {
                switched = true;
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".into()
            } else {
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{address}",
                    address.to_string().len()
                )
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    }
}

fn hints_asked_for(head: &[u8]) -> usize {
    let text = String::from_utf8_lossy(head);
    let number = text.strip_prefix("GET /hints/");
    number.map_or(0, |rest| rest.split(' ').next().unwrap().parse().unwrap())
}

/// A name server that knows these names.
pub fn names(known: &[(&str, &[Ipv4Addr])]) -> Arc<AtomicUsize> {
    let known: HashMap<String, Vec<Ipv4Addr>> = known
        .iter()
        .map(|(name, addresses)| ((*name).to_owned(), addresses.to_vec()))
        .collect();
    name_server(FIRST, move |question| {
        let addresses = known.get(&asked_for(question));
        vec![answer_all(question, addresses.map_or(&[], Vec::as_slice))]
    })
}
