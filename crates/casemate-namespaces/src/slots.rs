//! Slots: an id range with its user namespace, and a network, under one index.
//!
//! A stock is made ahead; what is unused ends with this process, because descriptors are all that
//! keeps it alive. Used slots are never used again: their namespaces are dropped in batches, and
//! an index comes round again only after all others.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use casemate_net::{NetError, NetPool, NetSlot};

use crate::launcher::message::{Reply, Request, USERNS_BATCH_MAX};
use crate::launchers::{LauncherError, Launchers};
use crate::lease::Lease;
use crate::shelf::Shelf;

/// A slot that nobody used yet.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) first_id: u32,
    pub(crate) userns: OwnedFd,
    pub(crate) net: NetSlot,
}

/// Why no slots were made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotError {
    #[error("cannot make user namespaces")]
    Ids(#[source] LauncherError),
    #[error("cannot make networks")]
    Network(#[source] NetError),
    #[error("the work was abandoned")]
    Abandoned(#[source] tokio::task::JoinError),
}

#[derive(Debug)]
pub(crate) struct Slots {
    lease: Lease,
    net: Arc<NetPool>,
    /// For slow work; creates have launchers of their own.
    preparer: Launchers,
    /// Indexes that nobody has, the longest unused first.
    free: Mutex<VecDeque<u16>>,
    pub(crate) shelf: Shelf<Slot>,
}

impl Slots {
    pub(crate) fn new(lease: Lease, net: Arc<NetPool>, preparer: Launchers) -> Self {
        let free = Mutex::new((0..net.subnet().slots()).collect());
        Self {
            lease,
            net,
            preparer,
            free,
            shelf: Shelf::new(),
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
                let made = slots.len();
                slots.into_iter().for_each(|slot| self.shelf.put(slot));
                Ok(made)
            }
            Err(error) => {
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
        let net = Arc::clone(&self.net);
        let wanted = indexes.to_vec();
        let networks = tokio::task::spawn_blocking(move || net.slots_create(wanted));
        let (namespaces, networks) = tokio::join!(self.preparer.ask(&request, &[]), networks);
        let networks = networks
            .map_err(SlotError::Abandoned)?
            .map_err(SlotError::Network)?;
        let namespaces = match namespaces.map_err(SlotError::Ids)? {
            (Reply::Done, fds) if fds.len() == indexes.len() => fds,
            _ => return Err(SlotError::Ids(LauncherError::Confused)),
        };
        let parts = first_ids.into_iter().zip(namespaces).zip(networks);
        Ok(parts
            .map(|((first_id, userns), net)| Slot {
                first_id,
                userns,
                net,
            })
            .collect())
    }

    /// Drops what is left of used slots and frees their indexes. Blocks for some milliseconds.
    pub(crate) fn retire(&self, used: Vec<NetSlot>) -> Result<(), NetError> {
        let indexes: BTreeSet<u16> = used.iter().map(|slot| slot.index).collect();
        let retired = self.net.retire(used);
        // Also when the policies could not be cleared: the table is made anew with each slot.
        indexes.into_iter().for_each(|index| self.release(index));
        retired
    }

    /// Ends the stock and its preparer.
    pub(crate) fn close(&self) -> Result<(), NetError> {
        self.preparer.stop();
        let unused = self.shelf.close();
        self.retire(unused.into_iter().map(|slot| slot.net).collect())
    }

    fn free(&self) -> MutexGuard<'_, VecDeque<u16>> {
        // No holder leaves it half changed.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<SlotError> for io::Error {
    fn from(error: SlotError) -> Self {
        io::Error::other(error)
    }
}
