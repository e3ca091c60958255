//! Taking over what an earlier process left: sandboxes that run on, and what belongs to nobody.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_net::NetSlot;
use casemate_runtime::{AdoptError, RuntimeError, RuntimeRecord};
use casemate_types::SandboxId;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::log::Log;
use super::look::Sight;
use super::{Entry, Running, Shared, blocking, failed, lock, stop, watched};
use crate::pool::Layer;
use crate::record::Facts;
use crate::slots::slot_of_group;
use crate::view::Figures;

pub(super) fn adopt(shared: &Arc<Shared>, record: &RuntimeRecord) -> Result<(), AdoptError> {
    let sandbox = &record.sandbox;
    let failed = |source: io::Error| AdoptError::Record {
        sandbox: sandbox.clone(),
        source: Box::new(source),
    };
    if lock(&shared.table).contains_key(sandbox) {
        return Ok(());
    }
    let facts = Facts::of(record).map_err(failed)?;
    let group = facts.group.clone().unwrap_or_else(|| sandbox.to_string());
    let is_its_own = || Ok(shared.cgroups.id(&group)? == Some(facts.cgroup));
    let gone = || AdoptError::Gone {
        sandbox: sandbox.clone(),
        memory_kills: is_its_own()
            .and_then(|own| own.then(|| shared.cgroups.memory_kills(&group)).transpose())
            .unwrap_or_default(),
    };
    let process = facts.process().map_err(failed)?.ok_or_else(gone)?;
    let layer = Layer::parse(&facts.layer)
        .filter(|layer| shared.pool.contains(layer))
        .ok_or_else(gone)?;
    if !is_its_own().map_err(failed)? {
        return Err(gone());
    }
    let net = match network(shared, &facts) {
        Ok(net) => net,
        // It ended while we looked.
        Err(_) if !matches!(facts.process(), Ok(Some(_))) => return Err(gone()),
        Err(error) => return Err(failed(error)),
    };
    let (process, netns) = watched(&process, &net).map_err(failed)?;
    let figures = facts.machine.clone().map(Figures::new);
    // Without one, as of earlier versions, it has no log.
    let log = shared.views.log(facts.slot).ok().map(Log::new);
    // Last: what fails before leaves the slot to the sweep, which ends what is in it.
    if !shared.slots.claim(facts.slot) {
        let taken = io::Error::new(io::ErrorKind::AlreadyExists, "its slot belongs to another");
        return Err(failed(taken));
    }
    let running = Running {
        group,
        facts,
        process,
        netns,
        net: Mutex::new(Some(net)),
        layer,
        log: Mutex::new(log),
        sight: Mutex::new(Sight::resume(figures)),
    };
    shared.watch(sandbox, Arc::new(running));
    Ok(())
}

fn network(shared: &Shared, facts: &Facts) -> io::Result<NetSlot> {
    let netns = OwnedFd::from(std::fs::File::open(format!("/proc/{}/ns/net", facts.pid))?);
    shared
        .net
        .adopt(facts.slot, netns)
        .map_err(io::Error::other)
}

/// How long processes that a crash left may take to go before we start without waiting for them.
const END_PATIENCE: Duration = Duration::from_secs(10);
const END_POLL: Duration = Duration::from_millis(5);
/// How often those that do not go are tried again.
const RESISTING_POLL: Duration = Duration::from_secs(1);

/// Ends and removes what has the instance's name and belongs to no sandbox of `keep`.
pub(super) async fn sweep(
    shared: &Arc<Shared>,
    keep: &BTreeSet<SandboxId>,
) -> Result<(), RuntimeError> {
    let taken_over: Vec<SandboxId> = lock(&shared.table).keys().cloned().collect();
    for sandbox in taken_over.iter().filter(|sandbox| !keep.contains(sandbox)) {
        stop::stop(shared, sandbox).await?;
    }
    let unowned = unowned(shared, keep)?;
    tell_of_populated(shared, &unowned);
    end_all(shared, unowned).await;
    let sweeper = Arc::clone(shared);
    blocking("sweep views", move || sweeper.slots.sweep_views()).await?;
    let mut layers = layers_of_running(shared);
    layers.extend(lock(&shared.spared).iter().cloned());
    let sweeper = Arc::clone(shared);
    blocking("retire layers", move || sweeper.pool.sweep(&layers)).await?;
    let sweeper = Arc::clone(shared);
    let sweep = move || sweeper.pool.sweep_sealed();
    blocking("sweep layers that were not sealed", sweep).await?;
    let sweeper = Arc::clone(shared);
    blocking("sweep the network", move || {
        sweeper.net.sweep(&sweeper.slots.taken())
    })
    .await?;
    let sweeper = Arc::clone(shared);
    blocking("delete old layers", move || {
        sweeper.pool.empty_trash(&mut || {}, None)
    })
    .await
}

/// Control groups with our name that belong to no sandbox and no slot.
fn unowned(shared: &Shared, keep: &BTreeSet<SandboxId>) -> Result<Vec<String>, RuntimeError> {
    let names = shared.cgroups.names();
    let names = names.map_err(|e| failed("list control groups", e))?;
    let (mut groups, slots) = (groups_of_running(shared), shared.slots.taken());
    // As earlier versions named them.
    groups.extend(keep.iter().map(SandboxId::to_string));
    let in_stock = |name: &str| slot_of_group(name).is_some_and(|slot| slots.contains(&slot));
    let is_unowned = |name: &String| !in_stock(name) && !groups.contains(name);
    Ok(names.into_iter().filter(is_unowned).collect())
}

/// What nobody owns has no log of its own: this is where its end is said.
fn tell_of_populated(shared: &Shared, groups: &[String]) {
    for group in groups {
        let processes = shared.cgroups.processes(group).unwrap_or_default().len();
        if processes > 0 {
            tracing::warn!(
                group,
                processes,
                "ending {processes} processes in control group {group}, which belong to no sandbox"
            );
        }
    }
}

/// Ends what is in these groups and removes them. Those of processes that do not go, as the kernel
/// may hold them, are left to a task that goes on trying: they must keep nobody from starting.
async fn end_all(shared: &Arc<Shared>, groups: Vec<String>) {
    let deadline = tokio::time::Instant::now() + END_PATIENCE;
    let mut left = groups;
    loop {
        left.retain(|group| !end(shared, group));
        if left.is_empty() || tokio::time::Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(END_POLL).await;
    }
    for group in left {
        tracing::error!(
            group,
            "what a crash left in control group {group} does not end yet"
        );
        // Its slot is nobody's until then.
        let slot = slot_of_group(&group).filter(|slot| shared.slots.claim(*slot));
        let task = tokio::spawn(end_at_last(Arc::clone(shared), group, slot));
        lock(&shared.tasks).push(task.abort_handle());
    }
}

async fn end_at_last(shared: Arc<Shared>, group: String, slot: Option<u16>) {
    while !end(&shared, &group) {
        tokio::time::sleep(RESISTING_POLL).await;
    }
    tracing::info!(
        group,
        "what a crash left in control group {group} has ended"
    );
    if let Some(slot) = slot {
        shared.slots.release(slot);
    }
}

/// Ends what a sandbox that nobody took over has left in its group: processes that were ended and
/// are not gone yet, if any.
pub(super) async fn end_what_is_left(
    shared: &Shared,
    facts: &Facts,
    sandbox: &SandboxId,
) -> Result<(), RuntimeError> {
    let group = facts.group.clone().unwrap_or_else(|| sandbox.to_string());
    let id = shared.cgroups.id(&group);
    let id = id.map_err(|error| failed("find its control group", error))?;
    // Of another boot the number means nothing.
    let is_its_own = facts.boot_id == shared.boot_id && id == Some(facts.cgroup);
    if !is_its_own || groups_of_running(shared).contains(&group) {
        return Ok(());
    }
    let deadline = tokio::time::Instant::now() + END_PATIENCE;
    while !end(shared, &group) {
        if tokio::time::Instant::now() > deadline {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            return Err(failed("wait for its processes", late));
        }
        tokio::time::sleep(END_POLL).await;
    }
    Ok(())
}

/// One attempt. Whether the group is gone.
fn end(shared: &Shared, group: &str) -> bool {
    if shared.cgroups.delete(group).is_ok() {
        return true;
    }
    let killed = shared.cgroups.kill(group);
    let processes = shared.cgroups.processes(group).unwrap_or_default();
    if let Err(error) = killed {
        tracing::warn!(group, %error, "cannot end a control group; ending its processes");
    }
    for pid in processes.into_iter().filter_map(Pid::from_raw) {
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
            // Gone meanwhile is as good.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
    false
}

pub(super) fn layers_of_running(shared: &Shared) -> BTreeSet<Layer> {
    of_running(shared, |running| running.layer.clone())
}

fn groups_of_running(shared: &Shared) -> BTreeSet<String> {
    of_running(shared, |running| running.group.clone())
}

fn of_running<T: Ord>(shared: &Shared, part: impl Fn(&Running) -> T) -> BTreeSet<T> {
    let table = lock(&shared.table);
    let running = table.values().filter_map(|entry| match entry {
        Entry::Running(running) => Some(running),
        Entry::Making | Entry::Ending => None,
    });
    running.map(|running| part(running)).collect()
}
