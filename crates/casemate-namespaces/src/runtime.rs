//! The runtime: all parts under one roof, behind the port.
//!
//! ```text
//! create:  Reserved ─claim─▶ Claimed ─launch─▶ Launched ─ready─▶ Running
//!              └──────────────── on an error each undoes what it made
//! stop:    Running ─▶ Ending ─▶ gone            files and networks go in the background
//! suspend: Running ─▶ Ending ─▶ gone            its files are kept (`keep`)
//! ```
//!
//! A table holds one entry for each sandbox; tasks keep the stock filled and clear away what was
//! used. Nothing here survives this process but what [`crate::record`] describes.

mod adopt;
mod carry;
mod copies;
mod create;
mod freeze;
mod keep;
mod log;
mod look;
mod memory;
mod open;
mod seal;
mod space;
mod stock;
mod stop;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use casemate_net::{NetPool, NetSlot};
use casemate_runtime::{
    AdoptError, Born, Capabilities, CarryError, CreateError, CreateSpec, DialError, Exit, Frozen,
    IsolationKind, Measured, Runtime, RuntimeError, RuntimeRecord, Seen, SnapshotError, Snapshots,
    Stock, Taken,
};
use casemate_types::{CompiledPolicy, LayerId, Portable, SandboxId, SnapshotId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use crate::cgroup::Cgroups;
use crate::config::NamespacesConfig;
use crate::dialer::{Dialer, Refused};
use crate::launchers::Launchers;
use crate::pool::{Layer, Pool, Room};
use crate::readiness::watch;
use crate::record::Facts;
use crate::shelf::Shelf;
use crate::slots::Slots;
use crate::step::Step;
use crate::view::Views;
use copies::Copies;
use look::{Sight, Stir};
pub use open::OpenError;
pub use space::{PoolSpace, SandboxSpace};

/// Sandboxes of Linux namespaces on this machine.
#[derive(Debug)]
pub struct NamespacesRuntime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: NamespacesConfig,
    boot_id: String,
    cgroups: Arc<Cgroups>,
    pool: Arc<Pool>,
    net: Arc<NetPool>,
    slots: Slots,
    layers: Shelf<Layer>,
    copies: Copies,
    /// Turns for making layers of snapshots.
    seals: seal::Lanes,
    /// Of sandboxes that ended and that could not be kept yet: no sweep takes them.
    spared: Mutex<BTreeSet<Layer>>,
    /// What was left of the pool when it was looked at last.
    room: Mutex<Option<Room>>,
    /// When there was last none.
    full_at: Mutex<Option<Instant>>,
    launchers: Launchers,
    dialer: Dialer,
    views: Arc<Views>,
    table: Mutex<BTreeMap<SandboxId, Entry>>,
    /// Creates under way; the stock is filled between them.
    creating: AtomicUsize,
    /// Creates that ever began.
    begun: AtomicUsize,
    calm: Notify,
    stir: Stir,
    exits: Mutex<Option<mpsc::UnboundedSender<Exit>>>,
    used: mpsc::UnboundedSender<NetSlot>,
    /// Taken by the first sweep: before it nothing may be made.
    waste: Mutex<Option<mpsc::UnboundedReceiver<NetSlot>>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

#[derive(Debug)]
enum Entry {
    Making,
    Running(Arc<Running>),
    Ending,
}

/// A sandbox that runs, or did until its process ended and nobody called `stop` yet.
#[derive(Debug)]
struct Running {
    facts: Facts,
    /// Readable once the first process is gone, and with it all others.
    process: AsyncFd<OwnedFd>,
    netns: Arc<OwnedFd>,
    /// Name of its control groups.
    group: String,
    /// Taken by whoever ends it.
    net: Mutex<Option<NetSlot>>,
    layer: Layer,
    log: Mutex<Option<log::Log>>,
    sight: Mutex<Sight>,
}

impl NamespacesRuntime {
    /// The instance's network: for its resolver's sockets and for healing its rules.
    pub fn network(&self) -> &Arc<NetPool> {
        &self.shared.net
    }

    /// Where template layers belong: one folder each.
    pub fn layers_dir(&self) -> std::path::PathBuf {
        self.shared.pool.layers_dir()
    }

    /// The address by which a sandbox's packets are known; for the resolver's policies.
    pub fn address(&self, sandbox: &SandboxId) -> Option<std::net::Ipv4Addr> {
        let running = self.shared.running(sandbox)?;
        self.shared.net.subnet().address(running.facts.slot).ok()
    }

    /// The same of a sandbox that may still be starting.
    pub fn address_in(&self, record: &RuntimeRecord) -> Option<std::net::Ipv4Addr> {
        let facts = Facts::of(record).ok()?;
        self.shared.net.subnet().address(facts.slot).ok()
    }

    /// What writable layers take.
    pub async fn space(&self) -> Result<PoolSpace, RuntimeError> {
        let shared = Arc::clone(&self.shared);
        blocking("measure the pool", move || space::measure(&shared)).await
    }

    /// Bytes in a sandbox's writable layer. Blocks while an advisory pool is walked.
    pub fn disk_used_bytes(&self, sandbox: &SandboxId) -> io::Result<Option<u64>> {
        self.shared
            .running(sandbox)
            .map(|running| self.shared.pool.used_bytes(&running.layer))
            .transpose()
    }
}

impl Drop for NamespacesRuntime {
    /// Sandboxes run on; the stock and its tasks end.
    fn drop(&mut self) {
        // No used layer comes back any more: a successor may have listed those that are in use.
        self.shared.layers.close();
        lock(&self.shared.tasks)
            .drain(..)
            .for_each(|task| task.abort());
    }
}

#[async_trait]
impl Runtime for NamespacesRuntime {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kind: IsolationKind::Namespaces,
            own_kernel: false,
            disk_limit: self.shared.pool.disk_limit(),
            memory_snapshots: false,
        }
    }

    async fn create_noting(
        &self,
        spec: CreateSpec,
        born: Born<'_>,
    ) -> Result<RuntimeRecord, CreateError> {
        create::create(&self.shared, spec, born).await
    }

    async fn stop(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        stop::stop(&self.shared, sandbox).await
    }

    async fn freeze(&self, sandbox: &SandboxId) -> Result<Frozen, RuntimeError> {
        freeze::freeze(&self.shared, sandbox).await
    }

    async fn thaw(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        freeze::thaw(&self.shared, sandbox).await
    }

    async fn adopt(&self, record: &RuntimeRecord) -> Result<(), AdoptError> {
        adopt::adopt(&self.shared, record)
    }

    async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> Result<(), RuntimeError> {
        adopt::sweep(&self.shared, keep).await?;
        stock::start(&self.shared);
        Ok(())
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<std::net::TcpStream, DialError> {
        let running = self
            .shared
            .running(sandbox)
            .ok_or_else(|| DialError::NotFound(sandbox.clone()))?;
        let sandbox = sandbox.clone();
        self.shared
            .dialer
            .dial(&running.netns, port)
            .await
            .map_err(|refused| match refused {
                Refused::Closed => DialError::PortClosed { sandbox, port },
                Refused::Io(source) => DialError::Io {
                    sandbox,
                    port,
                    source,
                },
            })
    }

    async fn set_network(
        &self,
        sandbox: &SandboxId,
        policy: &CompiledPolicy,
    ) -> Result<(), RuntimeError> {
        let running = self
            .shared
            .running(sandbox)
            .ok_or_else(|| RuntimeError::NotFound(sandbox.clone()))?;
        let (net, policy) = (Arc::clone(&self.shared.net), policy.clone());
        let slot = running.facts.slot;
        blocking("replace the network rules", move || {
            net.policy_apply(slot, &policy)
        })
        .await
    }

    fn exits(&self) -> mpsc::UnboundedReceiver<Exit> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *lock(&self.shared.exits) = Some(sender);
        receiver
    }

    async fn look(&self) -> Result<Vec<Seen>, RuntimeError> {
        look::look(&self.shared).await
    }

    fn log(&self, sandbox: &SandboxId) -> String {
        let Some(running) = self.shared.running(sandbox) else {
            return String::new();
        };
        let mut log = lock(&running.log);
        let taken = log.as_mut().map(log::Log::take).transpose();
        taken
            .unwrap_or_else(|error| {
                let cause = error.to_string();
                tracing::debug!(cause, "the log of {sandbox} cannot be read");
                *log = None;
                None
            })
            .unwrap_or_default()
    }

    fn memory_kills(&self, sandbox: &SandboxId) -> Option<u64> {
        let running = self.shared.running(sandbox)?;
        let counted = self.shared.cgroups.memory_kills(&running.group);
        counted
            .inspect_err(|error| {
                let cause = error.to_string();
                tracing::debug!(
                    cause,
                    "ends for want of memory in {sandbox} cannot be counted"
                );
            })
            .ok()
    }

    fn stock(&self) -> Stock {
        Stock {
            slots_ready: self.shared.slots.shelf.len(),
            layers_ready: self.shared.layers.len(),
            bytes_left: lock(&self.shared.room).map(|room| room.left),
            full_ago: lock(&self.shared.full_at).map(|at| at.elapsed()),
        }
    }

    async fn teardown(&self, purge: bool) -> Result<(), RuntimeError> {
        stop::teardown(&self.shared, purge).await
    }
}

#[async_trait]
impl Snapshots for NamespacesRuntime {
    async fn take(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<Taken, SnapshotError> {
        keep::take(&self.shared, sandbox, snapshot).await
    }

    async fn suspend(
        &self,
        sandbox: &SandboxId,
        snapshot: &SnapshotId,
    ) -> Result<(), SnapshotError> {
        keep::suspend(&self.shared, sandbox, snapshot).await
    }

    async fn salvage(
        &self,
        record: &RuntimeRecord,
        snapshot: &SnapshotId,
    ) -> Result<bool, SnapshotError> {
        keep::salvage(&self.shared, record, snapshot).await
    }

    async fn has(&self, snapshot: &SnapshotId) -> Result<bool, SnapshotError> {
        let (pool, id) = (Arc::clone(&self.shared.pool), snapshot.clone());
        seal::blocking("look for the snapshot", move || Ok(pool.is_kept(&id))).await
    }

    async fn remove(&self, snapshot: &SnapshotId) -> Result<(), SnapshotError> {
        let (shared, id) = (Arc::clone(&self.shared), snapshot.clone());
        let remove = move || copies::forget(&shared, &id).step("remove the snapshot");
        keep::blocking(snapshot, remove).await
    }

    async fn seal(&self, snapshot: &SnapshotId, layer: &LayerId) -> Result<u64, SnapshotError> {
        seal::seal(&self.shared, snapshot, layer).await
    }

    async fn remove_layer(&self, layer: &LayerId) -> Result<(), SnapshotError> {
        let (pool, layer) = (Arc::clone(&self.shared.pool), layer.clone());
        seal::blocking("remove the layer", move || pool.remove_sealed(&layer)).await
    }

    async fn layers(&self) -> Result<BTreeSet<LayerId>, SnapshotError> {
        let pool = Arc::clone(&self.shared.pool);
        seal::blocking("list layers", move || pool.sealed()).await
    }

    async fn list(&self) -> Result<BTreeMap<SnapshotId, Option<u64>>, SnapshotError> {
        let pool = Arc::clone(&self.shared.pool);
        seal::blocking("list snapshots", move || pool.kept()).await
    }

    async fn measure(&self, what: &Portable) -> Result<Option<Measured>, SnapshotError> {
        let (pool, what) = (Arc::clone(&self.shared.pool), what.clone());
        seal::blocking("measure what is kept", move || pool.measure(&what)).await
    }

    async fn note_use(&self, whats: &[Portable]) {
        let (pool, whats) = (Arc::clone(&self.shared.pool), whats.to_vec());
        let noting = tokio::task::spawn_blocking(move || pool.note_use(&whats));
        // It does not panic, and where the process ends it is of no use.
        let _ = noting.await;
    }

    async fn pack(&self, what: &Portable, to: UnixStream) -> Result<(), CarryError> {
        carry::pack(&self.shared, what, to).await
    }

    async fn unpack(&self, what: &Portable, from: UnixStream) -> Result<u64, CarryError> {
        carry::unpack(&self.shared, what, from).await
    }
}

impl Shared {
    fn running(&self, sandbox: &SandboxId) -> Option<Arc<Running>> {
        match lock(&self.table).get(sandbox)? {
            Entry::Running(running) => Some(Arc::clone(running)),
            Entry::Making | Entry::Ending => None,
        }
    }

    /// Enters a running sandbox and watches for its end.
    fn watch(self: &Arc<Self>, sandbox: &SandboxId, running: Arc<Running>) {
        lock(&self.table).insert(sandbox.clone(), Entry::Running(Arc::clone(&running)));
        let (shared, sandbox) = (Arc::downgrade(self), sandbox.clone());
        // Ends with the process that it watches, at the latest when the runtime is dropped.
        tokio::spawn(async move {
            let ended = running.process.readable().await.is_ok();
            let Some(shared) = shared.upgrade().filter(|_| ended) else {
                return;
            };
            // Whoever ends it on purpose has changed the entry before.
            let unasked = shared
                .running(&sandbox)
                .is_some_and(|now| Arc::ptr_eq(&now, &running));
            if unasked {
                shared.tell_exit(&sandbox);
            }
        });
    }

    fn tell_exit(&self, sandbox: &SandboxId) {
        if let Some(exits) = &*lock(&self.exits) {
            // A subscriber that went away wants to hear no more.
            let _ = exits.send(Exit {
                sandbox: sandbox.clone(),
            });
        }
    }
}

impl Running {
    /// Whether none of its processes is left: the kernel tells of the first one's end last.
    fn has_ended(&self) -> bool {
        let mut first = [PollFd::new(self.process.get_ref(), PollFlags::IN)];
        matches!(poll(&mut first, Some(&Timespec::default())), Ok(1..))
    }
}

/// Descriptors of its own for watching a process and for dialling into its network.
fn watched(process: &OwnedFd, net: &NetSlot) -> io::Result<(AsyncFd<OwnedFd>, Arc<OwnedFd>)> {
    let process = watch(process.try_clone()?, Interest::READABLE)?;
    Ok((process, Arc::new(net.netns.try_clone()?)))
}

/// Runs blocking work elsewhere and names it when it fails.
async fn blocking<T: Send + 'static, E: std::error::Error + Send + Sync + 'static>(
    step: &'static str,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(step, error)),
        Err(error) => Err(failed(step, error)),
    }
}

fn failed(
    step: &'static str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> RuntimeError {
    RuntimeError::Step {
        step,
        source: Box::new(error),
    }
}

/// No holder of these locks leaves anything half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
