//! A test's host, the outside world beyond it, and what goes to and fro.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use casemate_linux::net::{netns_create, netns_current, netns_enter};
use casemate_net::{CONNECTIONS_PER_SLOT_DEFAULT, NetConfig, NetPool, NetSlot};
use casemate_types::InstanceId;

pub const PORT: u16 = 7777;
pub const HOST: &str = "203.0.113.1";
pub const HOST_SECOND: &str = "198.51.100.9";
pub const OUTSIDE: &str = "203.0.113.2";
/// Addresses of the world outside; the first two are what sandboxes may reach by default.
pub const OPEN_TARGETS: [&str; 2] = ["8.8.8.8", "1.1.1.1"];
pub const CLOSED_TARGETS: [&str; 9] = [
    "10.9.8.7",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.5.5",
    "172.31.255.254",
    "192.0.0.192",
    "192.168.7.7",
    "240.0.0.1",
];
const PATIENCE: Duration = Duration::from_millis(700);

/// Skips a test where it was not asked for.
pub fn enabled() -> bool {
    let enabled = std::env::var_os("CASEMATE_TEST_ROOT").is_some_and(|v| v == "1");
    if !enabled {
        eprintln!("skipped: needs root, set CASEMATE_TEST_ROOT=1");
    }
    enabled
}

pub struct World {
    pub outside: OwnedFd,
    pub state: tempfile::TempDir,
}

impl World {
    /// Moves this thread into a host of its own and puts the outside world beside it.
    pub fn new() -> Self {
        netns_create().unwrap();
        assert_eq!(
            output("ip", &["route"]),
            "",
            "nothing may lead out of a test"
        );
        let outside = thread::spawn(|| netns_create().unwrap()).join().unwrap();
        ip("link set lo up");
        // A new namespace takes this over from the real host, whatever that is doing.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let peer = Command::new("ip")
            .args([
                "link", "add", "up0", "mtu", "1400", "type", "veth", "peer", "name", "out0",
            ])
            .status()
            .unwrap();
        assert!(peer.success());
        // `ip` has no way to name a namespace by descriptor but by a process in it.
        let mut holder = inside(&outside, || {
            Command::new("sleep").arg("60").spawn().unwrap()
        });
        ip(&format!("link set out0 netns {}", holder.id()));
        holder.kill().unwrap();
        holder.wait().unwrap();
        ip(&format!("addr add {HOST}/24 dev up0"));
        ip(&format!("addr add {HOST_SECOND}/32 dev lo"));
        // Its link-local address would appear some time later and look like something left.
        std::fs::write("/proc/sys/net/ipv6/conf/up0/disable_ipv6", "1").unwrap();
        ip("link set up0 up");
        ip(&format!("route add default via {OUTSIDE}"));
        inside(&outside, || {
            ip("link set lo up");
            ip(&format!("addr add {OUTSIDE}/24 dev out0"));
            ip("link set out0 up");
            // Answers find their way back even when nothing is translated: for the controls.
            ip(&format!("route add default via {HOST}"));
            for address in OPEN_TARGETS.iter().chain(&CLOSED_TARGETS) {
                // `240.0.0.1` and the like are refused as addresses, but not as local routes.
                let local = format!("route add local {address}/32 dev lo");
                ip(&local);
            }
            serve(&[OUTSIDE]);
            serve(&OPEN_TARGETS);
            serve(&CLOSED_TARGETS);
        });
        serve(&[HOST, HOST_SECOND]);
        Self {
            outside,
            state: tempfile::tempdir().unwrap(),
        }
    }

    pub fn config(&self, instance: &str, subnet: &str) -> NetConfig {
        NetConfig {
            instance: InstanceId::parse(instance).unwrap(),
            subnet: subnet.parse().unwrap(),
            state_dir: self.state.path().join(instance),
            allow_ranges: Vec::new(),
            connections_per_slot_max: CONNECTIONS_PER_SLOT_DEFAULT,
        }
    }

    pub fn pool(&self) -> NetPool {
        NetPool::open(self.config("testaa00", "100.64.0.0/24")).unwrap()
    }
}

/// What came of an attempt to reach something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The other end saw this address.
    Reached(IpAddr),
    /// An error at once: what sandboxes are to see.
    Refused,
    /// Nothing came back.
    Silent,
}

impl Outcome {
    pub fn is_reached(&self) -> bool {
        matches!(self, Self::Reached(_))
    }
}

/// Runs `work` on a thread in the namespace.
pub fn inside<T: Send>(netns: impl AsFd, work: impl FnOnce() -> T + Send) -> T {
    let fd = netns.as_fd();
    thread::scope(|scope| {
        scope
            .spawn(move || {
                netns_enter(fd).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

pub fn tcp(slot: &NetSlot, to: &str) -> Outcome {
    tcp_port(slot, to, PORT)
}

pub fn tcp_port(slot: &NetSlot, to: &str, port: u16) -> Outcome {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    inside(&slot.netns, || {
        outcome(TcpStream::connect_timeout(&to, PATIENCE).and_then(|mut s| ask_tcp(&mut s)))
    })
}

/// One question and answer over a connection that is there.
pub fn ask_tcp(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"who am I?")?;
    let mut answer = [0; 100];
    let len = stream.read(&mut answer)?;
    if len == 0 {
        return Err(std::io::ErrorKind::ConnectionReset.into());
    }
    Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
}

pub fn udp(slot: &NetSlot, to: &str) -> Outcome {
    let from = if to.contains(':') { "::" } else { "0.0.0.0" };
    udp_from(slot, from, to, PORT)
}

pub fn udp_from(slot: &NetSlot, from: &str, to: &str, port: u16) -> Outcome {
    let from: IpAddr = from.parse().unwrap();
    let to = SocketAddr::new(to.parse().unwrap(), port);
    inside(&slot.netns, || {
        outcome(UdpSocket::bind((from, 0)).and_then(|socket| {
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(to)?;
            socket.send(b"who am I?")?;
            let mut answer = [0; 100];
            let len = socket.recv(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
        }))
    })
}

fn outcome(result: std::io::Result<String>) -> Outcome {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    match result {
        Ok(answer) => Outcome::Reached(answer.parse().expect("the server says an address")),
        Err(error) if matches!(error.kind(), TimedOut | WouldBlock) => Outcome::Silent,
        Err(_) => Outcome::Refused,
    }
}

/// A service on these addresses that tells callers theirs. One socket for each address: an answer
/// must come from where the question went. Its threads end with the test program.
pub fn serve(addresses: &[&str]) {
    for address in addresses {
        let address: IpAddr = address.parse().unwrap();
        let udp = UdpSocket::bind((address, PORT)).unwrap();
        serve_on(TcpListener::bind((address, PORT)).unwrap(), udp);
    }
}

pub fn serve_on(tcp: TcpListener, udp: UdpSocket) {
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let Ok(peer) = stream.peer_addr() else { return };
                let mut question = [0; 100];
                while matches!(stream.read(&mut question), Ok(len) if len > 0) {
                    let _ = stream.write_all(seen(peer).as_bytes());
                }
            });
        }
    });
    thread::spawn(move || {
        let mut question = [0; 100];
        while let Ok((_, peer)) = udp.recv_from(&mut question) {
            let _ = udp.send_to(seen(peer).as_bytes(), peer);
        }
    });
}

fn seen(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}

pub fn ip(arguments: &str) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    output("ip", &arguments);
}

pub fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything of this thread's network that a test may leave behind.
pub fn snapshot() -> String {
    let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let redirects =
        std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/accept_redirects").unwrap();
    [
        output("ip", &["-o", "link"]),
        output("ip", &["-o", "addr"]),
        output("ip", &["route", "show", "table", "all"]),
        output("nft", &["list", "ruleset"]),
        forward,
        redirects,
    ]
    .join("\n")
}

/// Takes an instance's rules away: the control of an attack.
pub fn rules_off(instance: &str) {
    output(
        "nft",
        &["delete", "table", "inet", &format!("casemate_{instance}")],
    );
}

pub fn host() -> OwnedFd {
    netns_current().unwrap()
}
