//! Ending sandboxes, one or all.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::readiness::watch;
use casemate_failpoint::{self as failpoint, Point};
use casemate_net::NetSlot;
use casemate_runtime::RuntimeError;
use casemate_types::SandboxId;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;

use super::{Entry, Running, Shared, adopt, blocking, failed, lock};
use crate::pool::Layer;
use crate::slots::group_name;

/// How long killed processes may take to go; one that sits in the kernel (a dead disk) may not.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// How long a control group may stay busy after its last process.
const GROUP_PATIENCE: Duration = Duration::from_secs(2);
const GROUP_POLL: Duration = Duration::from_millis(1);

pub(super) async fn stop(shared: &Arc<Shared>, sandbox: &SandboxId) -> Result<(), RuntimeError> {
    let Some(running) = begin(shared, sandbox) else {
        return Ok(());
    };
    match end(shared, &running).await {
        Ok(()) => {
            lock(&shared.table).remove(sandbox);
            Ok(())
        }
        Err(error) => {
            // It is still there, so that it can be stopped again.
            lock(&shared.table).insert(sandbox.clone(), Entry::Running(running));
            Err(error)
        }
    }
}

/// Takes it out of everybody's hands; `None` where it does not run, or somebody else ends it.
pub(super) fn begin(shared: &Shared, sandbox: &SandboxId) -> Option<Arc<Running>> {
    let mut table = lock(&shared.table);
    let entry = table.get_mut(sandbox)?;
    match std::mem::replace(entry, Entry::Ending) {
        Entry::Running(running) => Some(running),
        other @ (Entry::Making | Entry::Ending) => {
            *entry = other;
            None
        }
    }
}

async fn end(shared: &Arc<Shared>, running: &Running) -> Result<(), RuntimeError> {
    end_processes(shared, running).await?;
    failpoint::hit(Point::StopEmptied);
    shared.pool.retire_quiet(&running.layer);
    failpoint::hit(Point::StopRetired);
    give_back(shared, running).await
}

/// Returns once the last of them is gone. Can be repeated.
pub(super) async fn end_processes(shared: &Shared, running: &Running) -> Result<(), RuntimeError> {
    kill(shared, &running.group, running.process.get_ref())
        .map_err(|e| failed("end its processes", e))?;
    tokio::time::timeout(END_PATIENCE, running.process.readable())
        .await
        .map_err(|late| failed("wait for its processes", late))?
        .map_err(|error| failed("wait for its processes", error))?
        .retain_ready();
    Ok(())
}

/// What it had beside its layer.
pub(super) async fn give_back(shared: &Shared, running: &Running) -> Result<(), RuntimeError> {
    if running.facts.group.is_none() {
        // Of an earlier version: nobody removes it with the slot.
        delete_group(shared, &running.group)
            .await
            .map_err(|e| failed("remove its control group", e))?;
    }
    if let Some(net) = lock(&running.net).take() {
        // Closed only when the runtime itself is gone.
        let _ = shared.used.send(net);
    }
    Ok(())
}

/// Undoes a sandbox that did not come to be. What cannot be undone now is left to the next sweep,
/// and said.
pub(super) async fn clear(
    shared: &Arc<Shared>,
    sandbox: &SandboxId,
    process: Option<OwnedFd>,
    net: NetSlot,
    layer: &Layer,
) {
    let group = group_name(net.index);
    // All of it is tried, whatever failed before. Whoever gives the slot up ends again what is in
    // its group then.
    let killed = match process {
        Some(process) => {
            let killed = kill(shared, &group, &process);
            let gone = async {
                let process = watch(process, Interest::READABLE)?;
                let gone = tokio::time::timeout(END_PATIENCE, process.readable()).await;
                gone.map_err(io::Error::from)??.retain_ready();
                Ok(())
            };
            killed.and(gone.await)
        }
        None => shared.cgroups.kill(&group),
    };
    shared.pool.retire(layer);
    if let Err(error) = killed {
        let cause = error.to_string();
        tracing::warn!(sandbox.id = %sandbox, cause, "sandbox {sandbox} is only half undone");
    }
    let _ = shared.used.send(net);
}

fn kill(shared: &Shared, group: &str, process: &OwnedFd) -> io::Result<()> {
    // The first process alone would do: the kernel ends all of its namespace with it. The group
    // ends them at once instead of one after the other.
    let all = shared.cgroups.kill(group);
    match pidfd_send_signal(process.as_fd(), Signal::KILL) {
        // It has taken the others with it, or will.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => all.and(Err(error.into())),
    }
}

/// The kernel empties a group a moment after its last process is gone, and tells nobody on v1.
pub(super) async fn delete_group(shared: &Shared, group: &str) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + GROUP_PATIENCE;
    loop {
        match shared.cgroups.delete(group) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(GROUP_POLL).await;
            }
            other => return other,
        }
    }
}

pub(super) async fn teardown(shared: &Arc<Shared>, purge: bool) -> Result<(), RuntimeError> {
    let all: Vec<_> = lock(&shared.table).keys().cloned().collect();
    for sandbox in &all {
        stop(shared, sandbox).await?;
    }
    for task in lock(&shared.tasks).drain(..) {
        task.abort();
    }
    // Whatever has our name and no entry.
    adopt::sweep(shared, &Default::default()).await?;
    shared.launchers.stop();
    let stop = Arc::clone(shared);
    blocking("give back slots", move || {
        let mut used: Vec<_> = Vec::new();
        if let Some(mut waste) = lock(&stop.waste).take() {
            while let Ok(net) = waste.try_recv() {
                used.push(net);
            }
        }
        stop.slots.close(used)
    })
    .await?;
    let stop = Arc::clone(shared);
    blocking("empty the pool", move || -> io::Result<()> {
        stop.layers.close();
        stop.pool.retire_all()?;
        match stop.pool.empty_trash(&mut || {}, None) {
            // The image goes, whatever is in it.
            Err(error) if purge => {
                tracing::warn!(%error, "the pool could not be emptied");
                Ok(())
            }
            other => other,
        }
    })
    .await?;
    let stop = Arc::clone(shared);
    blocking("close the pool", move || stop.pool.close(purge)).await?;
    let stop = Arc::clone(shared);
    blocking("close the views", move || stop.views.close()).await?;
    let stop = Arc::clone(shared);
    blocking("remove control groups", move || {
        let config = &stop.config;
        stop.cgroups.remove(&config.instance, &config.run_dir)
    })
    .await?;
    if purge {
        let stop = Arc::clone(shared);
        blocking("clear the network", move || stop.net.purge()).await?;
        purge_run_dir(shared).map_err(|error| failed("remove what is below /run", error))?;
    }
    Ok(())
}

fn purge_run_dir(shared: &Shared) -> io::Result<()> {
    shared.slots.lease().release()?;
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(std::fs::remove_dir_all(shared.config.instance_run_dir()))?;
    // Shared with other instances: only the last one takes it away.
    let leases = shared.config.run_dir.join("leases");
    if std::fs::read_dir(&leases)?.count() <= 1 {
        gone(std::fs::remove_file(leases.join("lock")))?;
        let _ = std::fs::remove_dir(&leases);
        let _ = std::fs::remove_dir(&shared.config.run_dir);
    }
    Ok(())
}
