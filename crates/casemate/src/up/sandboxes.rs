//! The runtime of this machine as `up` and `down` open it, with the resolver told of every slot.

mod egress;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use casemate_namespaces::lease::LeaseError;
use casemate_namespaces::{NamespacesConfig, NamespacesRuntime, OpenError, PoolSpace};
use casemate_runtime::{
    AdoptError, Born, Capabilities, CarryError, CreateError, CreateSpec, DialError, Exit, Frozen,
    Measured, Runtime, RuntimeError, RuntimeRecord, Seen, SnapshotError, Snapshots, Stock, Taken,
};
use casemate_types::{CompiledPolicy, LayerId, Portable, SandboxId, SnapshotId};
use tokio::sync::mpsc;

use super::programs;
use crate::config::Config;
use crate::data_dir::{self, DataDir};
pub use egress::{DnsSockets, Egress, ProxySockets};

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

    async fn has(&self, snapshot: &SnapshotId) -> Result<bool, SnapshotError> {
        self.inner.has(snapshot).await
    }

    async fn remove(&self, snapshot: &SnapshotId) -> Result<(), SnapshotError> {
        self.inner.remove(snapshot).await
    }

    async fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> Result<u64, SnapshotError> {
        self.inner.seal(snapshot, layer).await
    }

    async fn remove_layer(&self, layer: &LayerId) -> Result<(), SnapshotError> {
        self.inner.remove_layer(layer).await
    }

    async fn layers(&self) -> Result<BTreeSet<LayerId>, SnapshotError> {
        self.inner.layers().await
    }

    async fn list(&self) -> Result<BTreeMap<SnapshotId, Option<u64>>, SnapshotError> {
        self.inner.list().await
    }

    async fn measure(&self, what: &Portable) -> Result<Option<Measured>, SnapshotError> {
        self.inner.measure(what).await
    }

    async fn note_use(&self, whats: &[Portable]) {
        self.inner.note_use(whats).await;
    }

    async fn pack(&self, what: &Portable, to: UnixStream) -> Result<(), CarryError> {
        self.inner.pack(what, to).await
    }

    async fn unpack(&self, what: &Portable, from: UnixStream) -> Result<u64, CarryError> {
        self.inner.unpack(what, from).await
    }
}
