//! Sockets inside sandboxes, opened from outside.
//!
//! A socket belongs for ever to the network namespace of the thread that opened it. A few threads
//! do nothing but enter a sandbox's, open one and come back; connecting and all I/O are then
//! ordinary. They are not the async runtime's threads: one that cannot come back is in the wrong
//! network and must end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;

/// Opening a socket takes microseconds; two threads serve some 100,000 a second.
const THREADS: usize = 2;
/// Sockets asked for and not opened yet; beyond it a dial fails with `WouldBlock`.
const QUEUE_MAX: usize = 1024;

struct Job {
    netns: Arc<OwnedFd>,
    family: AddressFamily,
    answer: oneshot::Sender<io::Result<OwnedFd>>,
}

/// The threads' mouthpiece; they end when it is dropped.
#[derive(Debug)]
pub(crate) struct Dialer {
    jobs: SyncSender<Job>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Nobody listens.
    Closed,
    Io(io::Error),
}

impl Dialer {
    pub(crate) fn start() -> io::Result<Self> {
        let home = Arc::new(OwnedFd::from(std::fs::File::open("/proc/self/ns/net")?));
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            spawn(Arc::clone(&queue), Arc::clone(&home))?;
        }
        Ok(Self { jobs })
    }

    /// Connects to a port of that network, on either loopback address.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub(crate) async fn dial(
        &self,
        netns: &Arc<OwnedFd>,
        port: u16,
    ) -> Result<std::net::TcpStream, Refused> {
        let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        match self.connect(netns, v4).await {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
                ) => {}
            other => return other.map_err(Refused::Io),
        }
        let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
        self.connect(netns, v6)
            .await
            .map_err(|error| match error.raw_os_error() {
                // Reset: whoever listened went away with what waited there.
                Some(libc::ECONNREFUSED | libc::ECONNRESET) => Refused::Closed,
                // A host without IPv6 at all.
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::ENETUNREACH) => {
                    Refused::Closed
                }
                _ => Refused::Io(error),
            })
    }

    async fn connect(
        &self,
        netns: &Arc<OwnedFd>,
        to: SocketAddr,
    ) -> io::Result<std::net::TcpStream> {
        let family = if to.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let (answer, opened) = oneshot::channel();
        let job = Job {
            netns: Arc::clone(netns),
            family,
            answer,
        };
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => io::Error::from(io::ErrorKind::WouldBlock),
            TrySendError::Disconnected(_) => io::Error::from(io::ErrorKind::BrokenPipe),
        })?;
        let socket = opened
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        socket.connect(to).await?.into_std()
    }
}

fn spawn(queue: Arc<Mutex<Receiver<Job>>>, home: Arc<OwnedFd>) -> io::Result<()> {
    std::thread::Builder::new()
        .name("dial".into())
        .spawn(move || serve(&queue, &home))
        .map(drop)
}

fn serve(queue: &Arc<Mutex<Receiver<Job>>>, home: &Arc<OwnedFd>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let opened = open(&job);
        let back = enter(home);
        // Nobody may wait for it any more.
        let _ = job.answer.send(opened);
        if let Err(error) = back {
            let cause = error.to_string();
            tracing::error!(
                cause,
                "a dialling thread cannot leave a sandbox's network and ends"
            );
            if let Err(error) = spawn(Arc::clone(queue), Arc::clone(home)) {
                tracing::error!(
                    cause = error.to_string(),
                    "cannot replace a dialling thread"
                );
            }
            return;
        }
    }
}

fn open(job: &Job) -> io::Result<OwnedFd> {
    enter(&job.netns)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(job.family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

fn enter(netns: &OwnedFd) -> io::Result<()> {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).map_err(Into::into)
}
