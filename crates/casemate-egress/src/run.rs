//! The process: takes its sockets over, listens, and ends with the node.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::control::Control;
use crate::gate::{Gate, Pass};
use crate::proxy::{Caller, serve_http, serve_tls};
use crate::resolver::{Resolver, Step};
use crate::upstream::{Transport, read, write};
use crate::{EgressConfig, EgressError};

/// A question is a name and an EDNS record. A longer one over TCP ends its connection, over UDP it
/// is cut and then unfit.
const QUESTION_BYTES_MAX: usize = 4096;
/// A listener that fails (no descriptors left) is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sockets that the node bound at the gateway: port 53, and where the packet filter turns what
/// was sent to ports 80 and 443.
#[derive(Debug)]
pub struct Sockets {
    pub dns_udp: std::net::UdpSocket,
    pub dns_tcp: std::net::TcpListener,
    pub proxy_http: std::net::TcpListener,
    pub proxy_tls: std::net::TcpListener,
}

/// Answers slots until the node's end of `control` is closed. Needs a runtime with I/O and time, on
/// one thread.
///
/// # Cancel safety
/// Dropping it ends all that is under way; askers get no answer.
pub async fn run(
    sockets: Sockets,
    control: OwnedFd,
    config: EgressConfig,
) -> Result<(), EgressError> {
    let udp = sockets
        .dns_udp
        .set_nonblocking(true)
        .and_then(|()| UdpSocket::from_std(sockets.dns_udp))
        .map_err(|error| EgressError::Socket("UDP", error))?;
    let tcp = listener("TCP", sockets.dns_tcp)?;
    let http = listener("HTTP", sockets.proxy_http)?;
    let tls = listener("TLS", sockets.proxy_tls)?;
    let questions = Gate::new(config.connections_per_slot_max, config.connections_max);
    // One count for both: they take from the same room.
    let proxied = Gate::new(config.proxied_per_slot_max, config.proxied_max);
    let resolver = Rc::new(Resolver::new(Control::new(control)?, config));
    let dns = |stream, ip, pass| converse(Rc::clone(&resolver), stream, ip, pass);
    let web = |stream, ip, pass| proxy(Rc::clone(&resolver), stream, ip, pass, serve_http);
    let encrypted = |stream, ip, pass| proxy(Rc::clone(&resolver), stream, ip, pass, serve_tls);
    LocalSet::new()
        .run_until(async {
            tokio::select! {
                ended = resolver.control().closed() => ended,
                failed = serve_udp(Rc::clone(&resolver), Rc::new(udp)) => Err(failed),
                never = serve_tcp(tcp, questions, dns) => match never {},
                never = serve_tcp(http, proxied.clone(), web) => match never {},
                never = serve_tcp(tls, proxied, encrypted) => match never {},
            }
        })
        .await
}

fn listener(name: &'static str, socket: std::net::TcpListener) -> Result<TcpListener, EgressError> {
    socket
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(socket))
        .map_err(|error| EgressError::Socket(name, error))
}

/// Gives a connection to `serve` if its slot's policy opens any name; closes it otherwise.
async fn proxy(
    resolver: Rc<Resolver>,
    stream: TcpStream,
    ip: Ipv4Addr,
    pass: Pass,
    serve: impl AsyncFnOnce(TcpStream, Caller),
) {
    if let Some(slot) = resolver.control().slot(ip)
        && !slot.policy().domains.is_empty()
    {
        // Failing to set it costs some milliseconds a message.
        let _ = stream.set_nodelay(true);
        let caller = Caller {
            ip,
            slot,
            resolver,
            _pass: pass,
        };
        serve(stream, caller).await;
    }
}

async fn serve_udp(resolver: Rc<Resolver>, socket: Rc<UdpSocket>) -> EgressError {
    let mut tasks = JoinSet::new();
    let mut buffer = [0; QUESTION_BYTES_MAX];
    loop {
        while tasks.try_join_next().is_some() {}
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier answer found nobody: reported here, and of no interest.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return EgressError::Receive(error),
        };
        let Some(slot) = slot(from) else { continue };
        match resolver.judge(slot, &buffer[..len]) {
            Step::Silence => {}
            // A full send buffer loses the answer, as the network might; the asker asks again.
            Step::Answer(answer) => drop(socket.try_send_to(&answer, from)),
            Step::Ask(asking) => {
                let (resolver, socket) = (Rc::clone(&resolver), Rc::clone(&socket));
                tasks.spawn_local(async move {
                    let answer = resolver.ask(&asking, Transport::Udp).await;
                    drop(socket.send_to(&answer, from).await);
                });
            }
        }
    }
}

/// Begins `work` for each connection of a slot that has a place.
async fn serve_tcp<F: Future<Output = ()> + 'static>(
    listener: TcpListener,
    places: Gate,
    work: impl Fn(TcpStream, Ipv4Addr, Pass) -> F,
) -> std::convert::Infallible {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((stream, from)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Over the bound, the connection is closed by dropping it.
        if let Some(slot) = slot(from)
            && let Ok(pass) = places.enter(slot)
        {
            tasks.spawn_local(work(stream, slot, pass));
        }
    }
}

/// Answers one question after the other until the asker is done, silent or wrong.
async fn converse(resolver: Rc<Resolver>, mut stream: TcpStream, slot: Ipv4Addr, _pass: Pass) {
    let idle = resolver.config().idle_timeout;
    while let Ok(Ok(Some(question))) = timeout(idle, read(&mut stream, QUESTION_BYTES_MAX)).await {
        let answer = match resolver.judge(slot, &question) {
            Step::Silence => return,
            Step::Answer(answer) => answer,
            Step::Ask(asking) => resolver.ask(&asking, Transport::Tcp).await,
        };
        if !matches!(timeout(idle, write(&mut stream, &answer)).await, Ok(Ok(()))) {
            return;
        }
    }
}

fn slot(from: SocketAddr) -> Option<Ipv4Addr> {
    match from.ip().to_canonical() {
        IpAddr::V4(slot) => Some(slot),
        IpAddr::V6(_) => None,
    }
}
