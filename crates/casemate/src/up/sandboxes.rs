//! The runtime of this machine as `up` and `down` open it, with the resolver told of every slot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use casemate_egress::{Dns, EgressUpdate, SlotPolicy};
use casemate_namespaces::lease::LeaseError;
use casemate_namespaces::{NamespacesConfig, NamespacesRuntime, OpenError, PoolSpace};
use casemate_net::{PROXY_HTTP_PORT, PROXY_TLS_PORT};
use casemate_runtime::{
    AdoptError, Born, Capabilities, CreateError, CreateSpec, DialError, Exit, Frozen, Runtime,
    RuntimeError, RuntimeRecord, Seen, SnapshotError, Snapshots, Stock, Taken,
};
use casemate_types::{CompiledPolicy, SandboxId, SnapshotId};
use rustix::net::sockopt;
use tokio::sync::{Notify, mpsc};

use super::programs;
use crate::config::Config;
use crate::data_dir::{self, DataDir};

/// What is open while the platform runs.
pub struct Opened {
    pub runtime: Arc<Sandboxes>,
    pub egress: Arc<Egress>,
    pub layers_dir: PathBuf,
    pub gateway: Ipv4Addr,
}

/// Below it lie the files of sandboxes under their own ids, and a program that a sandbox made
/// set-user-id root would be one here: nobody but root comes near it.
pub fn make_run_dir(run_dir: &Path) -> anyhow::Result<()> {
    data_dir::make_dir(run_dir, 0o700)
}

/// Of a small disk a twentieth: the rest is worth something there.
const SMALL_DISK_PART: u64 = 20;

/// What must stay free on the disk of the data directory.
pub fn disk_reserve_bytes(config: &Config, data_dir: &Path) -> u64 {
    let set = config.node.disk_reserve_mib * 1024 * 1024;
    match rustix::fs::statvfs(data_dir) {
        Ok(disk) => set.min(disk.f_blocks.saturating_mul(disk.f_frsize) / SMALL_DISK_PART),
        Err(_) => set,
    }
}

/// What the runtime is opened for.
pub enum Purpose {
    /// With the sockets of the egress process as a predecessor had them, with the questions and
    /// connections that came since.
    Serve {
        dns: Option<DnsSockets>,
        proxy: Option<ProxySockets>,
    },
    /// To end what runs.
    End,
    /// To take everything away, also what cannot be reached any more.
    Purge,
}

/// Opens the pool, the network and the launchers of an instance.
pub async fn open(config: &Config, dir: &DataDir, purpose: Purpose) -> anyhow::Result<Opened> {
    let agent = programs::agent(dir.root())?;
    let mut settings = NamespacesConfig::new(dir.instance().clone(), dir.root().to_owned(), agent);
    settings.launcher = programs::launcher(dir.root())?;
    settings.launchers = config.node.launchers;
    settings.slot_stock = config.node.slot_stock;
    settings.pool_bytes_max =
        (config.node.pool_mib_max > 0).then(|| config.node.pool_mib_max * 1024 * 1024);
    settings.disk_reserve_bytes = disk_reserve_bytes(config, dir.root());
    settings.slot_range = config.subnet_base;
    settings.allow_ranges = config.allow_ranges.clone();
    settings.connections_per_slot_max = config.conntrack_per_sandbox_max;
    settings.gives_pool_up = matches!(purpose, Purpose::Purge);
    let (dns, proxy) = match purpose {
        Purpose::Serve { dns, proxy } => (dns, proxy),
        Purpose::End | Purpose::Purge => (None, None),
    };
    make_run_dir(&settings.run_dir)?;
    let inner = open_runtime(settings).await?;
    programs::forget_other_launchers(dir.root())?;
    if config.manage_firewall {
        let admitted = inner
            .network()
            .neighbours_admit()
            .context("let sandboxes pass")?;
        for neighbour in admitted {
            tracing::info!(rule = neighbour.rule, "added a rule: {}", neighbour.words);
        }
    }
    let gateway = inner.network().gateway();
    let dns = match dns {
        Some(dns) if dns.are_at(gateway) => dns,
        _ => {
            let (udp, tcp) = inner
                .network()
                .dns_sockets()
                .context("bind the resolver's sockets")?;
            DnsSockets {
                udp: udp.into(),
                tcp: tcp.into(),
            }
        }
    };
    let proxy = match proxy {
        Some(proxy) if proxy.are_at(gateway) => proxy,
        _ => {
            let bound = inner.network().proxy_sockets();
            let (http, tls) = bound.context("bind the proxy's sockets")?;
            ProxySockets {
                http: http.into(),
                tls: tls.into(),
            }
        }
    };
    let egress = Arc::new(Egress::new(dns, proxy));
    let layers_dir = inner.layers_dir();
    let runtime = Arc::new(Sandboxes {
        inner,
        egress: Arc::clone(&egress),
    });
    Ok(Opened {
        runtime,
        egress,
        layers_dir,
        gateway,
    })
}

/// How long a predecessor may take to die: the kernel closes what it held one by one, and the
/// lease may come long after the lock of the data directory, which is ours by now.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(30);

async fn open_runtime(settings: NamespacesConfig) -> anyhow::Result<NamespacesRuntime> {
    let begun = Instant::now();
    loop {
        match NamespacesRuntime::open(settings.clone()).await {
            Err(OpenError::Lease(LeaseError::Held(_))) if begun.elapsed() < PREDECESSOR_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            opened => return opened.context("open the sandbox runtime"),
        }
    }
}

/// Where layers of templates are; for commands beside a running platform.
pub fn layers_dir(config: &Config) -> anyhow::Result<PathBuf> {
    let dir = config.data_dir.join("node/layers");
    ensure!(
        dir.is_dir(),
        "there is no base template in {}",
        config.data_dir.display()
    );
    Ok(dir)
}

/// Port 53 of the gateway.
pub struct DnsSockets {
    pub udp: OwnedFd,
    pub tcp: OwnedFd,
}

impl DnsSockets {
    fn are_at(&self, gateway: Ipv4Addr) -> bool {
        is_at(&self.udp, gateway, 53) && is_at(&self.tcp, gateway, 53)
    }
}

/// Where the packet filter turns what is judged by name.
pub struct ProxySockets {
    pub http: OwnedFd,
    pub tls: OwnedFd,
}

impl ProxySockets {
    fn are_at(&self, gateway: Ipv4Addr) -> bool {
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

    fn set(&self, ip: Ipv4Addr, policy: &CompiledPolicy) {
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

    fn put(&self, ip: Ipv4Addr, policy: SlotPolicy) {
        let mut state = self.lock();
        self.tell(&mut state, ip, Some(policy.clone()));
        state.slots.insert(ip, policy);
    }

    /// Answers with what held for it.
    fn clear(&self, ip: Ipv4Addr) -> Option<SlotPolicy> {
        let mut state = self.lock();
        self.tell(&mut state, ip, None);
        state.slots.remove(&ip)
    }

    fn lock(&self) -> MutexGuard<'_, EgressState> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// The namespaces runtime, with the resolver told before a sandbox is anybody's.
pub struct Sandboxes {
    inner: NamespacesRuntime,
    egress: Arc<Egress>,
}

/// How often the packet filter is looked at: another program may flush it.
const RULES_LOOK: Duration = Duration::from_secs(5);

impl Sandboxes {
    /// What writable layers take.
    pub async fn space(&self) -> Result<PoolSpace, RuntimeError> {
        self.inner.space().await
    }

    /// Puts rules back that somebody else removed. Never returns.
    pub async fn keep_rules(self: Arc<Self>, manage_firewall: bool) {
        loop {
            tokio::time::sleep(RULES_LOOK).await;
            let net = Arc::clone(self.inner.network());
            let look = move || {
                let healed = net.heal()?;
                if manage_firewall {
                    net.neighbours_admit()?;
                }
                Ok::<_, casemate_net::NetError>(healed)
            };
            match tokio::task::spawn_blocking(look).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => tracing::error!(
                    "somebody removed the rules of sandboxes from the packet filter; they are back"
                ),
                Ok(Err(error)) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "cannot look after the rules of sandboxes");
                }
                Err(error) => tracing::error!(%error, "looking after rules failed"),
            }
        }
    }
}

#[async_trait]
impl Runtime for Sandboxes {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create_noting(
        &self,
        spec: CreateSpec,
        born: Born<'_>,
    ) -> Result<RuntimeRecord, CreateError> {
        let policy = spec.network.clone();
        let told = OnceLock::new();
        let tell = |record: &RuntimeRecord| {
            if let Some(ip) = self.inner.address_in(record) {
                self.egress.set(ip, &policy);
                let _ = told.set(ip);
            }
            born(record)
        };
        let made = self.inner.create_noting(spec, &tell).await;
        if let (Err(_), Some(ip)) = (&made, told.get()) {
            self.egress.clear(*ip);
        }
        made
    }

    async fn stop(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        // Told first: the address belongs to somebody else soon.
        if let Some(ip) = self.inner.address(sandbox) {
            self.egress.clear(ip);
        }
        self.inner.stop(sandbox).await
    }

    async fn freeze(&self, sandbox: &SandboxId) -> Result<Frozen, RuntimeError> {
        self.inner.freeze(sandbox).await
    }

    async fn thaw(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        self.inner.thaw(sandbox).await
    }

    async fn adopt(&self, record: &RuntimeRecord) -> Result<(), AdoptError> {
        // The resolver refuses it until whoever adopts has set its rules again.
        self.inner.adopt(record).await
    }

    async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> Result<(), RuntimeError> {
        self.inner.sweep(keep).await
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, DialError> {
        self.inner.dial(sandbox, port).await
    }

    async fn set_network(
        &self,
        sandbox: &SandboxId,
        policy: &CompiledPolicy,
    ) -> Result<(), RuntimeError> {
        self.inner.set_network(sandbox, policy).await?;
        if let Some(ip) = self.inner.address(sandbox) {
            self.egress.set(ip, policy);
        }
        Ok(())
    }

    fn exits(&self) -> mpsc::UnboundedReceiver<Exit> {
        self.inner.exits()
    }

    async fn look(&self) -> Result<Vec<Seen>, RuntimeError> {
        self.inner.look().await
    }

    fn log(&self, sandbox: &SandboxId) -> String {
        self.inner.log(sandbox)
    }

    fn memory_kills(&self, sandbox: &SandboxId) -> Option<u64> {
        self.inner.memory_kills(sandbox)
    }

    fn stock(&self) -> Stock {
        self.inner.stock()
    }

    async fn teardown(&self, purge: bool) -> Result<(), RuntimeError> {
        self.inner.teardown(purge).await
    }
}

#[async_trait]
impl Snapshots for Sandboxes {
    async fn take(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<Taken, SnapshotError> {
        self.inner.take(sandbox, snapshot).await
    }

    async fn suspend(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<(), SnapshotError> {
        // Told first: the address belongs to somebody else soon.
        let address = self.inner.address(sandbox);
        let told = address.and_then(|ip| Some((ip, self.egress.clear(ip)?)));
        let suspended = self.inner.suspend(sandbox, snapshot).await;
        if let (Err(_), Some((ip, policy))) = (&suspended, told) {
            // It goes on, or has its address still.
            self.egress.put(ip, policy);
        }
        suspended
    }

    async fn salvage(
        &self,
        record: &RuntimeRecord,
        snapshot: &SnapshotId,
    ) -> Result<bool, SnapshotError> {
        self.inner.salvage(record, snapshot).await
    }

    async fn remove(&self, snapshot: &SnapshotId) -> Result<(), SnapshotError> {
        self.inner.remove(snapshot).await
    }

    async fn list(&self) -> Result<BTreeMap<SnapshotId, Option<u64>>, SnapshotError> {
        self.inner.list().await
    }
}

#[cfg(test)]
mod tests {
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
