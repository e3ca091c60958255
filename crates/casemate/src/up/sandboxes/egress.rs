//! What the egress process of this machine is told, and the sockets that it is given.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use casemate_egress::{Dns, EgressUpdate, SlotPolicy};
use casemate_net::{PROXY_HTTP_PORT, PROXY_TLS_PORT};
use casemate_types::CompiledPolicy;
use rustix::net::sockopt;
use tokio::sync::Notify;

/// Port 53 of the gateway.
pub struct DnsSockets {
    pub udp: OwnedFd,
    pub tcp: OwnedFd,
}

impl DnsSockets {
    pub(super) fn are_at(&self, gateway: Ipv4Addr) -> bool {
        is_at(&self.udp, gateway, 53) && is_at(&self.tcp, gateway, 53)
    }
}

/// Where the packet filter turns what is judged by name.
pub struct ProxySockets {
    pub http: OwnedFd,
    pub tls: OwnedFd,
}

impl ProxySockets {
    pub(super) fn are_at(&self, gateway: Ipv4Addr) -> bool {
        is_at(&self.http, gateway, PROXY_HTTP_PORT) && is_at(&self.tls, gateway, PROXY_TLS_PORT)
    }
}

fn is_at(socket: &OwnedFd, address: Ipv4Addr, port: u16) -> bool {
    let bound = rustix::net::getsockname(socket);
    bound.is_ok_and(|at| SocketAddrV4::try_from(at) == Ok(SocketAddrV4::new(address, port)))
}

/// How long the egress process may take to read what it is told, once its socket is full. Whoever
/// tells it waits meanwhile, once.
const HEAR_TIMEOUT: Duration = Duration::from_secs(3);

/// What the egress process is told: kept, so that one that starts again hears all of it.
pub struct Egress {
    pub dns: DnsSockets,
    pub proxy: ProxySockets,
    state: Mutex<EgressState>,
    /// It does not read what it is told.
    deaf: Notify,
}

#[derive(Default)]
struct EgressState {
    socket: Option<OwnedFd>,
    slots: HashMap<Ipv4Addr, SlotPolicy>,
}

impl Egress {
    pub fn new(dns: DnsSockets, proxy: ProxySockets) -> Self {
        Self {
            dns,
            proxy,
            state: Mutex::default(),
            deaf: Notify::new(),
        }
    }

    /// An egress process listens at the other end of `socket`. Waits for it where it has to hear
    /// more than fits the socket.
    pub fn attach(&self, socket: OwnedFd) -> io::Result<()> {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(HEAR_TIMEOUT))?;
        let mut state = self.lock();
        state.socket = Some(socket);
        let all: Vec<_> = state.slots.clone().into_iter().collect();
        for (ip, policy) in all {
            self.tell(&mut state, ip, Some(policy));
        }
        Ok(())
    }

    /// Returns when the egress process that is attached has stopped to read: it has to go.
    pub async fn deaf(&self) {
        self.deaf.notified().await;
    }

    /// One that cannot be told is one that died, or hangs: the next one hears everything.
    fn tell(&self, state: &mut EgressState, ip: Ipv4Addr, policy: Option<SlotPolicy>) {
        let Some(socket) = &state.socket else {
            return;
        };
        let Err(error) = casemate_egress::send(socket.as_fd(), &EgressUpdate { ip, policy }) else {
            return;
        };
        if error.kind() == io::ErrorKind::WouldBlock {
            tracing::error!("the egress process does not read what it is told; ending it");
            self.deaf.notify_one();
        } else {
            tracing::debug!(%error, "the egress process was not told of a slot");
        }
        state.socket = None;
    }

    pub(super) fn set(&self, ip: Ipv4Addr, policy: &CompiledPolicy) {
        let dns = if policy.dns {
            Dns::Allowed
        } else {
            Dns::Refused
        };
        let policy = SlotPolicy {
            dns,
            upstreams: policy.dns_servers.iter().copied().map(IpAddr::V4).collect(),
            domains: policy.domains.clone(),
        };
        self.put(ip, policy);
    }

    pub(super) fn put(&self, ip: Ipv4Addr, policy: SlotPolicy) {
        let mut state = self.lock();
        self.tell(&mut state, ip, Some(policy.clone()));
        state.slots.insert(ip, policy);
    }

    /// Answers with what held for it.
    pub(super) fn clear(&self, ip: Ipv4Addr) -> Option<SlotPolicy> {
        let mut state = self.lock();
        self.tell(&mut state, ip, None);
        state.slots.remove(&ip)
    }

    fn lock(&self) -> MutexGuard<'_, EgressState> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use casemate_linux::scm;
    use casemate_types::NetworkPolicy;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    /// Whoever makes or ends a sandbox meanwhile waits once, not for ever.
    #[tokio::test]
    async fn an_egress_process_that_hears_nothing_holds_nobody_up() {
        let (udp, tcp, http, tls) = (null(), null(), null(), null());
        let egress = Egress::new(DnsSockets { udp, tcp }, ProxySockets { http, tls });
        let (ours, theirs) = scm::pair().unwrap();
        egress.attach(ours).unwrap();
        let domains = (0..256).map(|n| format!("{n}.{}.example", "a".repeat(60)));
        let policy = NetworkPolicy {
            allow_out: Some(domains.collect()),
            deny_out: Some(vec!["0.0.0.0/0".into()]),
            ..Default::default()
        };
        let policy = policy.compile().unwrap();
        let begun = Instant::now();
        for n in 0..2000 {
            egress.set(Ipv4Addr::from(n), &policy);
        }
        assert!(begun.elapsed() >= HEAR_TIMEOUT, "the socket takes them all");
        egress.deaf().await;
        // The next one hears everything.
        drop(theirs);
        let (ours, theirs) = scm::pair().unwrap();
        let heard = std::thread::spawn(move || {
            let mut buffer = vec![0; scm::BYTES_MAX];
            let lengths = (0..2000).map(|_| scm::recv(&theirs, &mut buffer).unwrap().0);
            lengths.filter(|length| *length > 0).count()
        });
        egress.attach(ours).unwrap();
        assert_eq!(heard.join().unwrap(), 2000);
    }
}
