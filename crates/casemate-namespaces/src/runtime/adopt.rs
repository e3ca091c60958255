//! Taking over what an earlier process left: sandboxes that run on, and what belongs to nobody.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use casemate_net::NetSlot;
use casemate_runtime::{AdoptError, RuntimeError, RuntimeRecord};
use casemate_types::SandboxId;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::refresh::Shown;
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
    let gone = || AdoptError::Gone(sandbox.clone());
    let process = facts.process().map_err(failed)?.ok_or_else(gone)?;
    let layer = Layer::parse(&facts.layer)
        .filter(|layer| shared.pool.contains(layer))
        .ok_or_else(gone)?;
    let group = facts.group.clone().unwrap_or_else(|| sandbox.to_string());
    if shared.cgroups.id(&group).map_err(failed)? != Some(facts.cgroup) {
        return Err(gone());
    }
    let net = match network(shared, &facts) {
        Ok(net) => net,
        // It ended while we looked.
        Err(_) if !matches!(facts.process(), Ok(Some(_))) => return Err(gone()),
        Err(error) => return Err(failed(error)),
    };
    if !shared.slots.claim(facts.slot) {
        let taken = io::Error::new(io::ErrorKind::AlreadyExists, "its slot belongs to another");
        return Err(failed(taken));
    }
    let (process, netns) = watched(&process, &net).map_err(failed)?;
    let shown = facts.machine.clone().map(|machine| {
        let shown = Shown::resume(shared, &group, Figures::new(machine));
        shown.map_err(failed)
    });
    let running = Running {
        shown: Mutex::new(shown.transpose()?),
        group,
        facts,
        process,
        netns,
        net: Mutex::new(Some(net)),
        layer,
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

/// Ends and removes what has the instance's name and belongs neither to a sandbox in the table nor
/// to one of `keep`.
pub(super) async fn sweep(
    shared: &Arc<Shared>,
    keep: &BTreeSet<SandboxId>,
) -> Result<(), RuntimeError> {
    let names = shared
        .cgroups
        .names()
        .map_err(|e| failed("list control groups", e))?;
    let (mut groups, slots) = (groups_in_use(shared), shared.slots.taken());
    // As earlier versions named them.
    groups.extend(keep.iter().map(SandboxId::to_string));
    for name in names {
        let in_stock = slot_of_group(&name).is_some_and(|slot| slots.contains(&slot));
        if !in_stock && !groups.contains(&name) {
            end(shared, &name)
                .await
                .map_err(|e| failed("end what a crash left", e))?;
        }
    }
    let sweeper = Arc::clone(shared);
    blocking("sweep views", move || {
        sweeper.views.sweep(&sweeper.slots.taken())
    })
    .await?;
    let layers = layers_in_use(shared);
    let sweeper = Arc::clone(shared);
    blocking("retire layers", move || sweeper.pool.sweep(&layers)).await?;
    let sweeper = Arc::clone(shared);
    blocking("sweep the network", move || {
        sweeper.net.sweep(&sweeper.slots.taken())
    })
    .await?;
    let sweeper = Arc::clone(shared);
    blocking("delete old layers", move || {
        sweeper.pool.empty_trash(&mut || {})
    })
    .await
}

async fn end(shared: &Shared, group: &str) -> io::Result<()> {
    shared.cgroups.kill(group)?;
    for pid in shared.cgroups.processes(group)? {
        let Some(pid) = Pid::from_raw(pid) else {
            continue;
        };
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
            // Where the group could not end them; gone meanwhile is as good.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
    stop::delete_group(shared, group).await
}

fn layers_in_use(shared: &Shared) -> BTreeSet<Layer> {
    of_running(shared, |running| running.layer.clone())
}

fn groups_in_use(shared: &Shared) -> BTreeSet<String> {
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
