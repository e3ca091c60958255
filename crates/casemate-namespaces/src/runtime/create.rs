//! Making a sandbox: claim a slot and a layer, launch, wait for the agent.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_failpoint::{self as failpoint, Point};
use casemate_net::NetSlot;
use casemate_runtime::{Born, CreateError, CreateSpec, DiskLimit, RuntimeRecord};
use casemate_types::{SandboxId, SnapshotId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::log::Log;
use super::look::Sight;
use super::memory::{bounded, sealed, text_of};
use super::open::{ROOM_DATA, ROOM_WRITABLE, enforced};
use super::{Entry, Running, Shared, blocking, copies, lock, stop, watched};
use crate::cgroup::Limits;
use crate::launcher::message::{Order, Parts, Reply, Request};
use crate::launchers::LauncherError;
use crate::pool::Layer;
use crate::record::{Facts, start_time};
use crate::slots::{STOCK_RESOURCES, Slot, group_name};
use crate::view::{Figures, Machine};

/// How long a create waits for a prepared part when the stock is empty.
const STOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long the agent may take to serve.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// Layers that one overlay takes.
const LAYERS_MAX: usize = 16;
/// Most bytes of a host name, the kernel's limit.
const HOSTNAME_BYTES_MAX: usize = 64;

pub(super) async fn create(
    shared: &Arc<Shared>,
    spec: CreateSpec,
    born: Born<'_>,
) -> Result<RuntimeRecord, CreateError> {
    let lowers = check(shared, &spec)?;
    let reserved = Reserved::new(shared, &spec.sandbox)?;
    let launched = match launch(shared, &spec, &lowers).await {
        // A launcher that died took its order along; what it made of it is undone.
        Err(error) if is_launchers_death(&error) => launch(shared, &spec, &lowers).await?,
        other => other?,
    };
    failpoint::hit(Point::CreateLaunched);
    let (running, record) = match launched.ready(shared, &spec.sandbox, born).await {
        Ok(running) => running,
        Err((launched, error)) => {
            launched.undo(shared, &spec.sandbox).await;
            return Err(error);
        }
    };
    reserved.keep();
    shared.watch(&spec.sandbox, running);
    Ok(record)
}

/// With a slot and a layer of its own, which are thrown away when it fails.
async fn launch(
    shared: &Arc<Shared>,
    spec: &CreateSpec,
    lowers: &[PathBuf],
) -> Result<Launched, CreateError> {
    let claimed = Claimed::take(shared, spec).await?;
    failpoint::hit(Point::CreateClaimed);
    match claimed.launch(shared, spec, lowers.to_vec()).await {
        Ok(launched) => Ok(launched),
        Err((claimed, error)) => {
            claimed.undo(shared, &spec.sandbox).await;
            Err(error)
        }
    }
}

fn is_launchers_death(error: &CreateError) -> bool {
    let CreateError::Step { source, .. } = error else {
        return false;
    };
    matches!(source.downcast_ref(), Some(LauncherError::Io(error)) if matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    ))
}

/// Answers with the layers as the launchers see them.
fn check(shared: &Shared, spec: &CreateSpec) -> Result<Vec<PathBuf>, CreateError> {
    let refuse = |why: String| CreateError::Unsupported {
        sandbox: spec.sandbox.clone(),
        why,
    };
    if spec.lowers.is_empty() || spec.lowers.len() > LAYERS_MAX {
        return Err(refuse(format!(
            "{} layers, 1 to {LAYERS_MAX} work",
            spec.lowers.len()
        )));
    }
    if spec.hostname.is_empty() || spec.hostname.len() > HOSTNAME_BYTES_MAX {
        return Err(refuse("a host name has 1 to 64 bytes".into()));
    }
    let in_room = |lower: &PathBuf| {
        let path = lower
            .canonicalize()
            .map_err(|error| format!("{}: {error}", lower.display()))?;
        let below = path
            .strip_prefix(&shared.config.data_dir)
            .map_err(|_| format!("{} is outside the data directory", lower.display()))?;
        match path.is_dir() {
            true => Ok(Path::new("/").join(ROOM_DATA).join(below)),
            false => Err(format!("{} is no folder", lower.display())),
        }
    };
    spec.lowers
        .iter()
        .map(in_room)
        .collect::<Result<_, String>>()
        .map_err(refuse)
}

/// An entry in the table; removed again unless kept.
struct Reserved<'a> {
    shared: &'a Shared,
    sandbox: &'a SandboxId,
    kept: bool,
}

impl<'a> Reserved<'a> {
    fn new(shared: &'a Shared, sandbox: &'a SandboxId) -> Result<Self, CreateError> {
        let mut table = lock(&shared.table);
        if table.contains_key(sandbox) {
            return Err(CreateError::Exists(sandbox.clone()));
        }
        table.insert(sandbox.clone(), Entry::Making);
        shared.creating.fetch_add(1, Ordering::Relaxed);
        shared.begun.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            shared,
            sandbox,
            kept: false,
        })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.kept {
            lock(&self.shared.table).remove(self.sandbox);
        }
        if self.shared.creating.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.shared.calm.notify_waiters();
        }
    }
}

/// A slot and a layer that nobody else has. Undone by throwing both away.
struct Claimed {
    slot: Slot,
    layer: Layer,
    machine: Machine,
    shape: String,
}

impl Claimed {
    async fn take(shared: &Arc<Shared>, spec: &CreateSpec) -> Result<Self, CreateError> {
        let capacity = |what| CreateError::Capacity {
            sandbox: spec.sandbox.clone(),
            what,
        };
        let layer = match &spec.files {
            None => shared.layers.take(STOCK_PATIENCE).await,
            Some(snapshot) => Some(begin_with(shared, spec, snapshot).await?),
        };
        let layer = layer.ok_or_else(|| capacity("no writable layer"))?;
        let Some(slot) = shared.slots.shelf.take(STOCK_PATIENCE).await else {
            match spec.files {
                None => shared.layers.put(layer),
                Some(_) => shared.pool.discard(&layer),
            }
            return Err(capacity("no slot"));
        };
        let limits = Limits::of(&spec.resources);
        let processors = shared
            .slots
            .processors(spec.resources.vcpus, slot.net.index);
        let disk = enforced(&shared.pool, disk_bytes(spec));
        let mut claimed = Self {
            machine: Machine::new(processors, limits.memory_bytes, disk),
            shape: String::new(),
            slot,
            layer,
        };
        match claimed.fit(shared, spec, &limits).await {
            Ok(()) => Ok(claimed),
            Err(error) => {
                claimed.undo(shared, &spec.sandbox).await;
                Err(error)
            }
        }
    }

    /// What the stock was not made for.
    async fn fit(
        &mut self,
        shared: &Arc<Shared>,
        spec: &CreateSpec,
        limits: &Limits,
    ) -> Result<(), CreateError> {
        let show = || -> io::Result<String> {
            let (slot, machine) = (self.slot.net.index, &self.machine);
            shared.views.fit(slot, &self.slot.machine, machine)?;
            shared.views.shape(&machine.processors)
        };
        self.shape = show().map_err(step_error(&spec.sandbox, "show it its machine"))?;
        let bytes = disk_bytes(spec);
        if bytes != super::stock::LAYER_BYTES {
            let limited = shared.pool.limit(&self.layer, bytes);
            limited.map_err(step_error(&spec.sandbox, "set the disk limit"))?;
        }
        if *limits != Limits::of(&STOCK_RESOURCES) {
            let limited = shared.cgroups.limit(&self.group(), limits);
            limited.map_err(step_error(&spec.sandbox, "set its limits"))?;
        }
        // An earlier user's rules stand where they could not be cleared.
        if !spec.network.is_open() || shared.net.has_policy(self.slot.net.index) {
            let (net, policy) = (Arc::clone(&shared.net), spec.network.clone());
            let index = self.slot.net.index;
            blocking("set the network rules", move || {
                net.policy_apply(index, &policy)
            })
            .await
            .map_err(step_error(&spec.sandbox, "set the network rules"))?;
        }
        Ok(())
    }

    async fn launch(
        self,
        shared: &Shared,
        spec: &CreateSpec,
        lowers: Vec<PathBuf>,
    ) -> Result<Launched, (Self, CreateError)> {
        let order = self.order(shared, spec, lowers);
        let (fds, kept) = match self.descriptors(spec) {
            Ok(made) => made,
            Err(error) => {
                return Err((self, step_error(&spec.sandbox, "prepare the start")(error)));
            }
        };
        let request = Request::Create(Box::new(order));
        let answered = shared.launchers.ask(&request, &fds).await;
        // What stays open here would keep the ready pipe from closing with the sandbox.
        drop(fds);
        let answered = answered.and_then(|(reply, fds)| match (reply, fds.into_iter().next()) {
            (Reply::Created { pid }, Some(process)) => Ok((pid, process)),
            _ => Err(LauncherError::Confused),
        });
        match answered {
            Ok((pid, process)) => Ok(Launched {
                net: self.slot.net,
                log: Log::new(self.slot.log.near),
                layer: self.layer,
                machine: self.machine,
                pid,
                process,
                output: kept.output,
                ready: kept.ready,
            }),
            Err(error) => Err((
                self,
                step_error(&spec.sandbox, "launch the first process")(error),
            )),
        }
    }

    fn order(&self, shared: &Shared, spec: &CreateSpec, lowers: Vec<PathBuf>) -> Order {
        let advisory = shared.pool.disk_limit() == DiskLimit::Advisory;
        Order {
            group: self.group(),
            lowers,
            writable: Path::new("/").join(ROOM_WRITABLE).join(self.layer.name()),
            first_id: self.slot.first_id,
            hostname: spec.hostname.clone(),
            shared_memory_bytes: shared_memory_bytes(spec),
            slot: self.slot.net.index,
            shape: self.shape.clone(),
            born_s: self.machine.born_s,
            processors: match shared.slots.are_all(&self.machine.processors) {
                true => Vec::new(),
                false => self.machine.processors.clone(),
            },
            file_bytes_max: advisory.then(|| disk_bytes(spec)),
        }
    }

    fn group(&self) -> String {
        group_name(self.slot.net.index)
    }

    fn descriptors(&self, spec: &CreateSpec) -> io::Result<([OwnedFd; 6], Kept)> {
        let config = sealed("config", &serde_json::to_vec(&spec.agent)?)?;
        let output = bounded("output")?;
        let (ready, ready_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let kept = Kept {
            output: File::from(output.try_clone()?),
            ready: pipe::Receiver::from_owned_fd(ready)?,
        };
        let parts = Parts {
            userns: self.slot.userns.try_clone()?,
            netns: self.slot.net.netns.try_clone()?,
            config,
            output,
            ready: ready_end,
            log: self.slot.log.far.try_clone()?,
        };
        Ok((parts.into_list(), kept))
    }

    async fn undo(self, shared: &Arc<Shared>, sandbox: &SandboxId) {
        stop::clear(shared, sandbox, None, self.slot.net, &self.layer).await;
    }
}

/// A layer that holds what a snapshot does.
async fn begin_with(
    shared: &Arc<Shared>,
    spec: &CreateSpec,
    snapshot: &SnapshotId,
) -> Result<Layer, CreateError> {
    let (copier, id) = (Arc::clone(shared), snapshot.clone());
    let copied = tokio::task::spawn_blocking(move || copies::begin_with(&copier, &id)).await;
    let copied = copied.unwrap_or_else(|abandoned| Err(io::Error::other(abandoned)));
    copied.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CreateError::Unsupported {
            sandbox: spec.sandbox.clone(),
            why: format!("snapshot {snapshot} is not there"),
        },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CreateError::Capacity {
            sandbox: spec.sandbox.clone(),
            what: "no room for its files",
        },
        _ => step_error(&spec.sandbox, "copy the files")(error),
    })
}

/// Our ends of what the first process gets.
struct Kept {
    output: File,
    ready: pipe::Receiver,
}

/// A first process that has not reported yet. Undone by ending it.
struct Launched {
    net: NetSlot,
    log: Log,
    layer: Layer,
    machine: Machine,
    pid: i32,
    process: OwnedFd,
    output: File,
    ready: pipe::Receiver,
}

impl Launched {
    fn agent_error(&self, sandbox: &SandboxId, why: &str) -> CreateError {
        CreateError::Agent {
            sandbox: sandbox.clone(),
            output: format!("{why}: {}", text_of(&self.output)),
        }
    }

    async fn ready(
        mut self,
        shared: &Shared,
        sandbox: &SandboxId,
        born: Born<'_>,
    ) -> Result<(Arc<Running>, RuntimeRecord), (Self, CreateError)> {
        // What can be done while the agent starts is done before it is waited for.
        let recognised = self.recognise(shared, sandbox).and_then(|recognised| {
            born(&recognised.record)?;
            Ok(recognised)
        });
        let Recognised {
            facts,
            record,
            process,
            netns,
        } = match recognised {
            Ok(recognised) => recognised,
            Err(error) => {
                let failed = match has_ended(&self.process) {
                    true => self.agent_error(sandbox, "it ended"),
                    false => step_error(sandbox, "record the first process")(error),
                };
                return Err((self, failed));
            }
        };
        let said = tokio::time::timeout(READY_PATIENCE, self.ready.read_u8()).await;
        let why = match said {
            Ok(Ok(_)) => None,
            Ok(Err(_)) => Some("it ended"),
            Err(_) => Some("it did not report in time"),
        };
        if let Some(why) = why {
            let failed = self.agent_error(sandbox, why);
            return Err((self, failed));
        }
        let running = Running {
            group: group_name(self.net.index),
            facts,
            process,
            netns,
            net: Mutex::new(Some(self.net)),
            layer: self.layer,
            log: Mutex::new(Some(self.log)),
            sight: Mutex::new(Sight::begin(Figures::new(self.machine))),
        };
        Ok((Arc::new(running), record))
    }

    fn recognise(&self, shared: &Shared, sandbox: &SandboxId) -> io::Result<Recognised> {
        let group = group_name(self.net.index);
        let facts = Facts {
            boot_id: shared.boot_id.clone(),
            pid: self.pid,
            start_time: start_time(self.pid)?,
            cgroup: shared.cgroups.id(&group)?.unwrap_or(0),
            group: Some(group),
            slot: self.net.index,
            layer: self.layer.name().to_owned(),
            machine: Some(self.machine.clone()),
        };
        let record = facts.record(sandbox)?;
        let (process, netns) = watched(&self.process, &self.net)?;
        Ok(Recognised {
            facts,
            record,
            process,
            netns,
        })
    }

    async fn undo(self, shared: &Arc<Shared>, sandbox: &SandboxId) {
        stop::clear(shared, sandbox, Some(self.process), self.net, &self.layer).await;
    }
}

/// What is kept of a first process.
struct Recognised {
    facts: Facts,
    record: RuntimeRecord,
    process: AsyncFd<OwnedFd>,
    netns: Arc<OwnedFd>,
}

fn disk_bytes(spec: &CreateSpec) -> u64 {
    u64::from(spec.resources.disk_mib) << 20
}

/// As a machine with this memory would have: half of it. More, and whoever fills it would have
/// nothing left to run the program that empties it again.
fn shared_memory_bytes(spec: &CreateSpec) -> u64 {
    (u64::from(spec.resources.memory_mib) << 20) / 2
}

/// Whether a process, by its descriptor, is dead now.
fn has_ended(process: &OwnedFd) -> bool {
    let mut look = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut look, Some(&Timespec::default())), Ok(1..))
}

fn step_error<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    sandbox: &SandboxId,
    step: &'static str,
) -> impl FnOnce(E) -> CreateError {
    let sandbox = sandbox.clone();
    move |error| CreateError::Step {
        sandbox,
        step,
        source: error.into(),
    }
}
