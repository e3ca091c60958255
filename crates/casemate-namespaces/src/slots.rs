//! Slots: an id range with its user namespace, a network and control groups, under one index.
//!
//! A stock is made ahead. Namespaces that are unused end with this process, because descriptors are
//! all that keeps them alive; control groups are removed by name, at the latest by the next sweep.
//! Used slots are never used again: what they had is given up in batches, and an index comes round
//! again only after all others.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_failpoint::{self as failpoint, Point};
use casemate_net::{NetError, NetPool, NetSlot};
use casemate_types::Resources;

use crate::cgroup::{Cgroups, Limits};
use crate::launcher::message::{Reply, Request, USERNS_BATCH_MAX};
use crate::launchers::{LauncherError, Launchers};
use crate::lease::Lease;
use crate::shelf::Shelf;
use crate::step::StepError;
use crate::view::{Machine, Views};

/// What control groups in stock enforce: a sandbox's default. Other limits cost a create some
/// writes.
pub(crate) const STOCK_RESOURCES: Resources = Resources::BASE;

/// How long groups of sandboxes that have ended may stay busy, when nobody can try again later.
const GROUP_PATIENCE: Duration = Duration::from_secs(2);
const GROUP_POLL: Duration = Duration::from_millis(5);

const GROUP_PREFIX: &str = "slot-";

/// Name of a slot's control groups.
pub(crate) fn group_name(index: u16) -> String {
    format!("{GROUP_PREFIX}{index}")
}

/// The slot whose groups have that name.
pub(crate) fn slot_of_group(name: &str) -> Option<u16> {
    name.strip_prefix(GROUP_PREFIX)?.parse().ok()
}

/// A slot that nobody used yet.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) first_id: u32,
    pub(crate) userns: OwnedFd,
    pub(crate) net: NetSlot,
    /// What its files say until somebody uses them.
    pub(crate) machine: Machine,
    pub(crate) log: LogEnds,
}

/// Both ends of the pipe in which its log comes.
#[derive(Debug)]
pub(crate) struct LogEnds {
    pub(crate) near: OwnedFd,
    pub(crate) far: OwnedFd,
}

/// Why no slots were made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotError {
    #[error("cannot make user namespaces")]
    Ids(#[source] LauncherError),
    #[error("cannot make networks")]
    Network(#[source] NetError),
    #[error("cannot make control groups")]
    Groups(#[source] StepError),
    #[error("cannot make what sandboxes see of their machines")]
    Views(#[source] io::Error),
    #[error("the work was abandoned")]
    Abandoned(#[source] tokio::task::JoinError),
}

#[derive(Debug)]
pub(crate) struct Slots {
    lease: Lease,
    cgroups: Arc<Cgroups>,
    net: Arc<NetPool>,
    views: Arc<Views>,
    /// Of the host, that sandboxes may use.
    processors: Vec<u32>,
    /// What layers in stock may hold, where that is enforced.
    disk_bytes: Option<u64>,
    /// For slow work; creates have launchers of their own.
    preparer: Launchers,
    /// Indexes that nobody has, the longest unused first.
    free: Mutex<VecDeque<u16>>,
    pub(crate) shelf: Shelf<Slot>,
}

/// What slots in stock are to show.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) views: Arc<Views>,
    /// Of the host, that sandboxes may use.
    pub(crate) processors: Vec<u32>,
    /// What layers in stock may hold, where that is enforced.
    pub(crate) disk_bytes: Option<u64>,
}

impl Slots {
    pub(crate) fn new(
        lease: Lease,
        cgroups: Arc<Cgroups>,
        net: Arc<NetPool>,
        shown: Shown,
        preparer: Launchers,
        enough: usize,
    ) -> Self {
        let free = Mutex::new((0..net.subnet().slots()).collect());
        Self {
            lease,
            cgroups,
            net,
            views: shown.views,
            processors: shown.processors,
            disk_bytes: shown.disk_bytes,
            preparer,
            free,
            shelf: Shelf::new(enough),
        }
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Takes an index that a running sandbox has out of the free ones. `false`: it was not free.
    pub(crate) fn claim(&self, index: u16) -> bool {
        let mut free = self.free();
        let before = free.len();
        free.retain(|other| *other != index);
        free.len() < before
    }

    /// Every index that is not free: of sandboxes, in stock, being made or cleared away.
    pub(crate) fn taken(&self) -> BTreeSet<u16> {
        let free = self.free();
        let mut taken: BTreeSet<u16> = (0..self.net.subnet().slots()).collect();
        free.iter().for_each(|index| {
            taken.remove(index);
        });
        taken
    }

    /// Removes what is shown of slots that nobody has. Nobody gets one of them meanwhile.
    pub(crate) fn sweep_views(&self) -> io::Result<()> {
        for index in self.views.slots()? {
            if self.claim(index) {
                let removed = self.views.remove(index);
                self.release(index);
                removed?;
            }
        }
        Ok(())
    }

    /// Gives an index back whose namespaces are gone.
    pub(crate) fn release(&self, index: u16) {
        self.free().push_back(index);
    }

    /// Makes up to `count` slots and puts them on the shelf; answers how many.
    pub(crate) async fn make(&self, count: usize) -> Result<usize, SlotError> {
        let count = count.min(USERNS_BATCH_MAX);
        let indexes: Vec<u16> = {
            let mut free = self.free();
            let count = count.min(free.len());
            free.drain(..count).collect()
        };
        match self.make_these(&indexes).await {
            Ok(slots) => {
                failpoint::hit(Point::SlotMade);
                let made = slots.len();
                slots.into_iter().for_each(|slot| self.shelf.put(slot));
                Ok(made)
            }
            Err(error) => {
                for index in &indexes {
                    let _ = self.views.remove(*index);
                    // Nothing has joined them; one that stays all the same is left to the sweep.
                    let _ = self.cgroups.delete(&group_name(*index));
                }
                self.free().extend(indexes);
                Err(error)
            }
        }
    }

    async fn make_these(&self, indexes: &[u16]) -> Result<Vec<Slot>, SlotError> {
        if indexes.is_empty() {
            return Ok(Vec::new());
        }
        let first_ids: Vec<_> = indexes
            .iter()
            .map(|index| self.lease.first_id(*index))
            .collect();
        let request = Request::UserNamespaces {
            first_ids: first_ids.clone(),
        };
        let (net, cgroups) = (Arc::clone(&self.net), Arc::clone(&self.cgroups));
        let (views, wanted) = (Arc::clone(&self.views), indexes.to_vec());
        let machines: Vec<_> = indexes.iter().map(|index| self.machine(*index)).collect();
        let shown = machines.clone();
        let networks = tokio::task::spawn_blocking(move || {
            groups_create(&cgroups, &wanted).map_err(SlotError::Groups)?;
            let logs = views_create(&views, &wanted, &shown).map_err(SlotError::Views)?;
            let networks = net.slots_create(wanted).map_err(SlotError::Network)?;
            Ok((logs, networks))
        });
        let (namespaces, networks) = tokio::join!(self.preparer.ask(&request, &[]), networks);
        let (logs, networks) = networks.map_err(SlotError::Abandoned)??;
        let namespaces = match namespaces.map_err(SlotError::Ids)? {
            (Reply::Done, fds) if fds.len() == indexes.len() => fds,
            _ => return Err(SlotError::Ids(LauncherError::Confused)),
        };
        let parts = first_ids
            .into_iter()
            .zip(namespaces)
            .zip(networks)
            .zip(machines)
            .zip(logs);
        Ok(parts
            .map(|((((first_id, userns), net), machine), log)| Slot {
                first_id,
                userns,
                net,
                machine,
                log,
            })
            .collect())
    }

    /// The machine that a slot in stock is made for.
    fn machine(&self, index: u16) -> Machine {
        let processors = share(&self.processors, STOCK_RESOURCES.vcpus, index);
        let memory = Limits::of(&STOCK_RESOURCES).memory_bytes;
        Machine::new(processors, memory, self.disk_bytes)
    }

    /// Whether these are all processors that sandboxes may use.
    pub(crate) fn are_all(&self, processors: &[u32]) -> bool {
        processors.len() == self.processors.len()
    }

    /// Processors that a sandbox in that slot has.
    pub(crate) fn processors(&self, vcpus: u32, index: u16) -> Vec<u32> {
        share(&self.processors, vcpus, index)
    }

    /// Gives up what is left of used slots and frees their indexes. Blocks for some milliseconds.
    /// Slots whose control groups are still busy are answered, to be given up later.
    pub(crate) fn retire(&self, used: Vec<NetSlot>) -> (Vec<NetSlot>, Result<(), NetError>) {
        let emptied = |slot: &NetSlot| {
            let group = group_name(slot.index);
            let deleted = self.cgroups.delete(&group).is_ok();
            if !deleted {
                // The kernel may only be slow to count. But whoever is there has no business here:
                // a worker that outlived its order may have made a first process after all.
                let _ = self.cgroups.kill(&group);
            }
            deleted
        };
        let (used, busy): (Vec<_>, Vec<_>) = used.into_iter().partition(emptied);
        let indexes: BTreeSet<u16> = used.iter().map(|slot| slot.index).collect();
        failpoint::hit(Point::SlotRetiring);
        for index in &indexes {
            // What stays all the same is overwritten by whoever has the index next.
            let _ = self.views.remove(*index);
        }
        let retired = self.net.retire(used);
        failpoint::hit(Point::SlotRetired);
        // Also when the policies could not be cleared: whoever gets the slot next sets its own.
        indexes.into_iter().for_each(|index| self.release(index));
        (busy, retired)
    }

    /// Ends the stock and its preparer, and gives up the used slots that are handed in.
    pub(crate) fn close(&self, used: Vec<NetSlot>) -> Result<(), NetError> {
        self.preparer.stop();
        let unused = self.shelf.close().into_iter().map(|slot| slot.net);
        let mut left: Vec<_> = used.into_iter().chain(unused).collect();
        let deadline = std::time::Instant::now() + GROUP_PATIENCE;
        loop {
            let (busy, retired) = self.retire(left);
            retired?;
            left = busy;
            if left.is_empty() || std::time::Instant::now() > deadline {
                return Ok(());
            }
            std::thread::sleep(GROUP_POLL);
        }
    }

    fn free(&self) -> MutexGuard<'_, VecDeque<u16>> {
        // No holder leaves it half changed.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the groups of all these slots; what was made before an error is the caller's to remove.
fn groups_create(cgroups: &Cgroups, indexes: &[u16]) -> Result<(), StepError> {
    let limits = Limits::of(&STOCK_RESOURCES);
    indexes
        .iter()
        .try_for_each(|index| cgroups.create(&group_name(*index), &limits))
}

fn views_create(views: &Views, indexes: &[u16], machines: &[Machine]) -> io::Result<Vec<LogEnds>> {
    let make = |(index, machine): (&u16, &Machine)| {
        views.shape(&machine.processors)?;
        views.make(*index, machine)?;
        Ok(LogEnds {
            near: views.log(*index)?,
            far: views.log_far(*index)?,
        })
    };
    indexes.iter().zip(machines).map(make).collect()
}

/// Processors for a sandbox that gets fewer than there are: neighbours by slot, so that sandboxes
/// spread. `nproc` believes this and nothing else.
fn share(all: &[u32], vcpus: u32, slot: u16) -> Vec<u32> {
    let wanted = vcpus.max(1) as usize;
    if wanted >= all.len() {
        return all.to_vec();
    }
    let first = usize::from(slot) * wanted;
    (0..wanted)
        .map(|number| all[(first + number) % all.len()])
        .collect()
}

impl From<SlotError> for io::Error {
    fn from(error: SlotError) -> Self {
        io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_spread_over_processors() {
        assert_eq!(share(&[0, 1], 2, 5), [0, 1]);
        assert_eq!(share(&[0, 1], 8, 5), [0, 1]);
        assert_eq!(share(&[0, 1, 2, 3], 1, 5), [1]);
        assert_eq!(share(&[0, 2, 4, 6], 3, 1), [6, 0, 2]);
    }
}
