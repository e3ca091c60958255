//! A runtime of real sockets and no isolation, for tests of what stands above the port.
//!
//! A sandbox is an entry in a table; a port of it is a loopback listener that the test names.

mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use casemate_types::{CompiledPolicy, LayerId, Portable, SandboxId, SnapshotId, Startup};
use tokio::sync::mpsc;

use crate::{
    AdoptError, Born, Capabilities, Consumption, CreateError, CreateSpec, DialError, DiskLimit,
    Exit, Frozen, IsolationKind, Runtime, RuntimeError, RuntimeRecord, Seen, Stock,
};

/// See the module.
#[derive(Default)]
pub struct FakeRuntime {
    state: Mutex<State>,
    /// Whoever holds it holds dials up.
    dials: tokio::sync::Mutex<()>,
    /// The same for removals of layers.
    removals: tokio::sync::Mutex<()>,
    removal_waits: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    running: BTreeMap<SandboxId, CompiledPolicy>,
    frozen: BTreeSet<SandboxId>,
    /// What each has written, also of those that ended and were not swept.
    files: BTreeMap<SandboxId, String>,
    snapshots: BTreeMap<SnapshotId, String>,
    /// Made of snapshots.
    layers: BTreeMap<LayerId, String>,
    used: BTreeMap<Portable, Instant>,
    /// What each was told to run when it was made last.
    startups: BTreeMap<SandboxId, Startup>,
    /// Over what each was made last.
    lowers: BTreeMap<SandboxId, Vec<PathBuf>>,
    consumption: BTreeMap<SandboxId, Consumption>,
    logs: BTreeMap<SandboxId, String>,
    memory_kills: BTreeMap<SandboxId, u64>,
    ports: BTreeMap<u16, SocketAddr>,
    exits: Option<mpsc::UnboundedSender<Exit>>,
    fail_next_create: bool,
    fail_next_set_network: bool,
    fail_next_freeze: bool,
    /// Streams that something was made of.
    unpacked: usize,
    has_no_room: bool,
}

impl FakeRuntime {
    /// A layer of this name is here.
    pub fn has_layer(&self, layer: &LayerId, files: &str) {
        self.lock().layers.insert(layer.clone(), files.to_owned());
    }

    /// All layers.
    pub fn layer_ids(&self) -> BTreeSet<LayerId> {
        self.lock().layers.keys().cloned().collect()
    }

    /// How often something was made of a stream.
    pub fn unpacked(&self) -> usize {
        self.lock().unpacked
    }

    /// Every sandbox answers on `port` with what listens at `target`.
    pub fn open_port(&self, port: u16, target: SocketAddr) {
        self.lock().ports.insert(port, target);
    }

    /// Dials that have found their sandbox wait for as long as the guard lives.
    pub async fn hold_dials(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.dials.lock().await
    }

    /// Removals of layers wait for as long as the guard lives.
    pub async fn hold_removals(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.removals.lock().await
    }

    /// Until a removal has come that waits, or one that does not.
    pub async fn removal_waits(&self) {
        self.removal_waits.notified().await;
    }

    /// The next change of rules fails.
    pub fn fail_next_set_network(&self) {
        self.lock().fail_next_set_network = true;
    }

    /// Whether there is no room for any snapshot, nor for a layer.
    pub fn has_no_room(&self, full: bool) {
        self.lock().has_no_room = full;
    }

    /// The next freeze, or snapshot, fails.
    pub fn fail_next_freeze(&self) {
        self.lock().fail_next_freeze = true;
    }

    pub fn is_frozen(&self, sandbox: &SandboxId) -> bool {
        self.lock().frozen.contains(sandbox)
    }

    /// The machine is started anew: nothing runs, and files stay.
    pub fn restart_machine(&self) {
        let mut state = self.lock();
        state.running.clear();
        state.frozen.clear();
    }

    /// The sandbox writes to its files.
    pub fn write(&self, sandbox: &SandboxId, text: &str) {
        self.lock()
            .files
            .entry(sandbox.clone())
            .or_default()
            .push_str(text);
    }

    /// A snapshot that a crash left, or that somebody keeps.
    pub fn create_snapshot(&self, snapshot: &SnapshotId) {
        self.lock()
            .snapshots
            .insert(snapshot.clone(), String::new());
    }

    /// What the sandbox has written.
    pub fn files(&self, sandbox: &SandboxId) -> String {
        self.lock().files.get(sandbox).cloned().unwrap_or_default()
    }

    /// Over which layers it was made last, topmost first.
    pub fn lowers(&self, sandbox: &SandboxId) -> Vec<PathBuf> {
        self.lock().lowers.get(sandbox).cloned().unwrap_or_default()
    }

    /// What its agent was told to run when it was made last.
    pub fn startup(&self, sandbox: &SandboxId) -> Option<Startup> {
        self.lock().startups.get(sandbox).cloned()
    }

    /// The next create fails as if its agent had not started: after its birth was told.
    pub fn fail_next_create(&self) {
        self.lock().fail_next_create = true;
    }

    /// The sandbox ends by itself.
    pub fn exit(&self, sandbox: &SandboxId) {
        let mut state = self.lock();
        state.frozen.remove(sandbox);
        if state.running.remove(sandbox).is_some()
            && let Some(exits) = &state.exits
        {
            // A dropped subscriber means that the test looks no further.
            let _ = exits.send(Exit {
                sandbox: sandbox.clone(),
            });
        }
    }

    /// What a sandbox has consumed from now on; nothing before.
    pub fn consume(&self, sandbox: &SandboxId, consumption: Consumption) {
        self.lock().consumption.insert(sandbox.clone(), consumption);
    }

    /// The sandbox writes to its log.
    pub fn write_log(&self, sandbox: &SandboxId, lines: &str) {
        self.lock()
            .logs
            .entry(sandbox.clone())
            .or_default()
            .push_str(lines);
    }

    /// The kernel has ended so many processes of a sandbox because its memory was full.
    pub fn fill_memory(&self, sandbox: &SandboxId, kills: u64) {
        self.lock().memory_kills.insert(sandbox.clone(), kills);
    }

    /// The rules that a sandbox has now.
    pub fn policy(&self, sandbox: &SandboxId) -> Option<CompiledPolicy> {
        self.lock().running.get(sandbox).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kind: IsolationKind::Namespaces,
            own_kernel: false,
            disk_limit: DiskLimit::Advisory,
            memory_snapshots: false,
        }
    }

    async fn create_noting(
        &self,
        spec: CreateSpec,
        born: Born<'_>,
    ) -> Result<RuntimeRecord, CreateError> {
        let mut state = self.lock();
        if state.running.contains_key(&spec.sandbox) {
            return Err(CreateError::Exists(spec.sandbox));
        }
        let files = match &spec.files {
            None => String::new(),
            Some(snapshot) => match state.snapshots.get(snapshot) {
                Some(files) => files.clone(),
                None => {
                    return Err(CreateError::Unsupported {
                        sandbox: spec.sandbox,
                        why: format!("snapshot {snapshot} is not there"),
                    });
                }
            },
        };
        let record = RuntimeRecord {
            sandbox: spec.sandbox.clone(),
            kind: IsolationKind::Namespaces,
            version: 1,
            facts: serde_json::Value::Null,
        };
        born(&record).map_err(|source| CreateError::Step {
            sandbox: spec.sandbox.clone(),
            step: "note its birth",
            source: Box::new(source),
        })?;
        if std::mem::take(&mut state.fail_next_create) {
            let output = "told to fail".into();
            return Err(CreateError::Agent {
                sandbox: spec.sandbox,
                output,
            });
        }
        state.files.insert(spec.sandbox.clone(), files);
        state.lowers.insert(spec.sandbox.clone(), spec.lowers);
        match spec.agent.startup {
            Some(startup) => state.startups.insert(spec.sandbox.clone(), startup),
            None => state.startups.remove(&spec.sandbox),
        };
        state.running.insert(spec.sandbox, spec.network);
        Ok(record)
    }

    async fn stop(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        state.running.remove(sandbox);
        state.frozen.remove(sandbox);
        state.files.remove(sandbox);
        Ok(())
    }

    async fn freeze(&self, sandbox: &SandboxId) -> Result<Frozen, RuntimeError> {
        let mut state = self.lock();
        if std::mem::take(&mut state.fail_next_freeze) {
            return Err(RuntimeError::Step {
                step: "freeze the sandbox",
                source: "told to fail".into(),
            });
        }
        if !state.running.contains_key(sandbox) {
            return Err(RuntimeError::NotFound(sandbox.clone()));
        }
        state.frozen.insert(sandbox.clone());
        let consumed = state.consumption.get(sandbox);
        Ok(Frozen {
            memory_bytes: consumed.map_or(0, |one| one.memory_used_bytes),
        })
    }

    async fn thaw(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        if !state.running.contains_key(sandbox) {
            return Err(RuntimeError::NotFound(sandbox.clone()));
        }
        state.frozen.remove(sandbox);
        Ok(())
    }

    async fn adopt(&self, record: &RuntimeRecord) -> Result<(), AdoptError> {
        let state = self.lock();
        if state.running.contains_key(&record.sandbox) {
            return Ok(());
        }
        Err(AdoptError::Gone {
            sandbox: record.sandbox.clone(),
            memory_kills: state.memory_kills.get(&record.sandbox).copied(),
        })
    }

    async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        state.running.retain(|sandbox, _| keep.contains(sandbox));
        state.frozen.retain(|sandbox| keep.contains(sandbox));
        state.files.retain(|sandbox, _| keep.contains(sandbox));
        Ok(())
    }

    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, DialError> {
        let target = {
            let state = self.lock();
            if !state.running.contains_key(sandbox) {
                return Err(DialError::NotFound(sandbox.clone()));
            }
            state.ports.get(&port).copied()
        };
        drop(self.hold_dials().await);
        let closed = || DialError::PortClosed {
            sandbox: sandbox.clone(),
            port,
        };
        let io = |source| DialError::Io {
            sandbox: sandbox.clone(),
            port,
            source,
        };
        let stream = TcpStream::connect(target.ok_or_else(closed)?).map_err(|_| closed())?;
        stream.set_nonblocking(true).map_err(io)?;
        Ok(stream)
    }

    async fn set_network(
        &self,
        sandbox: &SandboxId,
        policy: &CompiledPolicy,
    ) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        if std::mem::take(&mut state.fail_next_set_network) {
            return Err(RuntimeError::Step {
                step: "set the network rules",
                source: "told to fail".into(),
            });
        }
        match state.running.get_mut(sandbox) {
            Some(rules) => *rules = policy.clone(),
            None => return Err(RuntimeError::NotFound(sandbox.clone())),
        }
        Ok(())
    }

    fn exits(&self) -> mpsc::UnboundedReceiver<Exit> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().exits = Some(sender);
        receiver
    }

    async fn look(&self) -> Result<Vec<Seen>, RuntimeError> {
        let state = self.lock();
        let nothing = Consumption {
            cpu_time: Duration::ZERO,
            memory_used_bytes: 0,
            memory_cache_bytes: 0,
            disk_used_bytes: None,
        };
        let see = |sandbox: &SandboxId| Seen {
            sandbox: sandbox.clone(),
            consumption: *state.consumption.get(sandbox).unwrap_or(&nothing),
            stirred: state.logs.contains_key(sandbox),
            memory_kills: state.memory_kills.get(sandbox).copied().unwrap_or(0),
        };
        Ok(state.running.keys().map(see).collect())
    }

    fn log(&self, sandbox: &SandboxId) -> String {
        self.lock().logs.remove(sandbox).unwrap_or_default()
    }

    fn memory_kills(&self, sandbox: &SandboxId) -> Option<u64> {
        let state = self.lock();
        let counted = state.memory_kills.get(sandbox).copied();
        let runs = state.running.contains_key(sandbox);
        runs.then(|| counted.unwrap_or(0))
    }

    fn stock(&self) -> Stock {
        Stock::default()
    }

    async fn teardown(&self, _purge: bool) -> Result<(), RuntimeError> {
        self.lock().running.clear();
        Ok(())
    }
}
