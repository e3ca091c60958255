//! A namespace with a gateway, two slots' addresses and two name servers, all on loopback.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use casemate_egress::{
    Dns, EgressConfig, EgressError, EgressUpdate, SlotPolicy, Sockets, Upstreams, run, send,
};
use casemate_linux::{net::netns_create, scm};
use casemate_types::network::DomainPattern;

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub const SLOT: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
pub const OTHER_SLOT: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 3);
/// Where the packet filter turns what was sent to ports 80 and 443.
pub const HTTP: u16 = 27_080;
pub const TLS: u16 = 27_443;
pub const FIRST: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
pub const SECOND: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const PATIENCE: Duration = Duration::from_secs(3);

pub const NO_ERROR: u8 = 0;
pub const SERVER_FAILURE: u8 = 2;
pub const REFUSED: u8 = 5;
pub const A: u16 = 1;
pub const AAAA: u16 = 28;

pub fn enabled() -> bool {
    let enabled = std::env::var_os("CASEMATE_TEST_ROOT").is_some_and(|v| v == "1");
    if !enabled {
        eprintln!("skipped: needs root, set CASEMATE_TEST_ROOT=1");
    }
    enabled
}

/// The egress process, as a thread.
pub struct Egress {
    pub control: OwnedFd,
    pub ended: JoinHandle<Result<(), EgressError>>,
}

pub fn config() -> EgressConfig {
    EgressConfig {
        upstreams: Upstreams::Fixed(vec![FIRST.into(), SECOND.into()]),
        upstream_timeout: Duration::from_millis(300),
        ..EgressConfig::default()
    }
}

/// Moves this thread into a namespace of its own and starts the resolver there.
pub fn start(config: EgressConfig) -> Egress {
    netns_create().unwrap();
    ip("link set lo up");
    for address in [GATEWAY, SLOT, OTHER_SLOT, FIRST, SECOND] {
        ip(&format!("addr add {address}/32 dev lo"));
    }
    let sockets = Sockets {
        dns_udp: UdpSocket::bind((GATEWAY, 53)).unwrap(),
        dns_tcp: TcpListener::bind((GATEWAY, 53)).unwrap(),
        proxy_http: TcpListener::bind((GATEWAY, HTTP)).unwrap(),
        proxy_tls: TcpListener::bind((GATEWAY, TLS)).unwrap(),
    };
    let (control, theirs) = scm::pair().unwrap();
    let ended = thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(sockets, theirs, config))
    });
    Egress { control, ended }
}

impl Egress {
    pub fn say(&self, slot: Ipv4Addr, dns: Dns, upstreams: &[Ipv4Addr]) {
        let upstreams = upstreams.iter().copied().map(IpAddr::V4).collect();
        let policy = Some(SlotPolicy {
            dns,
            upstreams,
            domains: Vec::new(),
        });
        send(&self.control, &EgressUpdate { ip: slot, policy }).unwrap();
    }

    /// A policy with domains: no other name is answered.
    pub fn open(&self, slot: Ipv4Addr, domains: &[&str]) {
        let domain = |text: &&str| DomainPattern::parse(text).unwrap();
        let policy = Some(SlotPolicy {
            dns: Dns::Refused,
            upstreams: Vec::new(),
            domains: domains.iter().map(domain).collect(),
        });
        send(&self.control, &EgressUpdate { ip: slot, policy }).unwrap();
    }

    pub fn forget(&self, slot: Ipv4Addr) {
        let update = EgressUpdate {
            ip: slot,
            policy: None,
        };
        send(&self.control, &update).unwrap();
    }
}

/// A name server; `answer` gives all packets that it sends for a question. Says how often it was
/// asked.
pub fn name_server(
    address: Ipv4Addr,
    answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let udp = UdpSocket::bind((address, 53)).unwrap();
    let tcp = TcpListener::bind((address, 53)).unwrap();
    let answer = Arc::new(answer);
    let (count, says) = (Arc::clone(&asked), Arc::clone(&answer));
    thread::spawn(move || {
        let mut buffer = [0; 5000];
        while let Ok((len, from)) = udp.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::SeqCst);
            for packet in says(&buffer[..len]) {
                udp.send_to(&packet, from).unwrap();
            }
        }
    });
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let question = read_message(&mut stream).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            for message in answer(&question) {
                let _ = write_message(&mut stream, &message);
            }
        }
    });
    asked
}

/// A question for `example.org`.
pub fn question(id: u16, kind: u16) -> Vec<u8> {
    question_for("example.org", id, kind)
}

pub fn question_for(name: &str, id: u16, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

/// The answer to a question: one address.
pub fn answer(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    answer_all(question, &[address])
}

/// The answer to a question: these addresses; none is a name that is not there.
pub fn answer_all(question: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2] |= 0x80;
    bytes[3] = if addresses.is_empty() { 0x83 } else { 0x80 };
    bytes[7] = u8::try_from(addresses.len()).unwrap();
    for address in addresses {
        bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        bytes.extend_from_slice(&address.octets());
    }
    bytes
}

/// The name in a question, in lower case.
pub fn asked_for(question: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut at = 12;
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
        at = end;
    }
    labels.join(".")
}

pub fn code(answer: &[u8]) -> u8 {
    answer[3] & 0x0f
}

/// A socket that asks as a slot does.
pub fn asker(slot: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((slot, 0)).unwrap();
    socket.connect((GATEWAY, 53)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub fn hear(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    let len = socket.recv(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

pub fn ask_udp(slot: Ipv4Addr, question: &[u8]) -> Vec<u8> {
    let socket = asker(slot);
    socket.send(question).unwrap();
    hear(&socket).unwrap()
}

/// A TCP connection from a slot. The standard library cannot bind before it connects, so the
/// namespace is told which address to use.
pub fn connect(slot: Ipv4Addr) -> TcpStream {
    connect_to(slot, 53)
}

pub fn connect_to(slot: Ipv4Addr, port: u16) -> TcpStream {
    ip(&format!(
        "route replace local {GATEWAY} dev lo table local src {slot}"
    ));
    let to = SocketAddr::from((GATEWAY, port));
    let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), slot);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn ask_tcp(stream: &mut TcpStream, question: &[u8]) -> io::Result<Vec<u8>> {
    write_message(stream, question)?;
    read_message(stream)
}

pub fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

pub fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let mut bytes = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes)
}

pub fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}
