//! Which sandboxes wait, and how many should. No clock of its own, and nothing that waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use casemate_rpc::CreateRequest;
use casemate_types::{SandboxId, TemplateId};
use tokio::time::Instant;

use super::Key;
use crate::config::WarmPoolConfig;

/// Sandboxes of all pools that are being made at once: those that clients wait for come first.
const MAKING_MAX: usize = 2;
/// After so long a pool that could not be filled is tried again; doubled with each time.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// One that ends so soon is not given away any more.
const LEFT_MIN: Duration = Duration::from_secs(2);

pub(super) struct Pools {
    limits: WarmPoolConfig,
    pools: HashMap<Key, Pool>,
    /// Those that wait, are being made, or are being given away.
    known: HashSet<SandboxId>,
}

struct Pool {
    /// What makes one, but for its name.
    request: CreateRequest,
    /// In the order in which they began to wait.
    ready: Vec<Ready>,
    making: HashSet<SandboxId>,
    /// When it was asked for, as often as more would make a difference.
    uses: VecDeque<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Clone)]
pub(super) struct Ready {
    pub(super) sandbox: SandboxId,
    /// When the node ends it.
    until: Instant,
}

/// What is to be done.
pub(super) enum Next {
    /// One more is wanted.
    Make(Key, Box<CreateRequest>),
    /// This one's place is wanted for others.
    End(SandboxId),
    /// Nothing, until something changes or this time has come.
    Wait(Option<Instant>),
}

impl Pool {
    fn size(&self) -> usize {
        self.ready.len() + self.making.len()
    }

    fn last_use(&self) -> Option<Instant> {
        self.uses.back().copied()
    }
}

impl Pools {
    pub(super) fn new(limits: WarmPoolConfig) -> Self {
        Self {
            limits,
            pools: HashMap::new(),
            known: HashSet::new(),
        }
    }

    pub(super) fn used(&mut self, key: &Key, request: CreateRequest) {
        if self.limits.size == 0 || self.limits.size_per_template == 0 {
            return;
        }
        let pool = self.pools.entry(key.clone()).or_insert_with(|| Pool {
            request: request.clone(),
            ready: Vec::new(),
            making: HashSet::new(),
            uses: VecDeque::new(),
            failures: 0,
            not_before: None,
        });
        // What a team may have changes.
        pool.request = request;
        pool.uses.push_back(Instant::now());
        if pool.uses.len() > self.limits.size_per_template {
            pool.uses.pop_front();
        }
    }

    pub(super) fn take(&mut self, key: &Key) -> Option<Ready> {
        let least = Instant::now() + LEFT_MIN;
        let pool = self.pools.get_mut(key)?;
        let last = pool.ready.pop_if(|ready| ready.until > least)?;
        // It counts as being made until it is given away or put back.
        pool.making.insert(last.sandbox.clone());
        Some(last)
    }

    /// It was taken and is not given away.
    pub(super) fn put_back(&mut self, key: &Key, ready: &Ready) {
        self.wait_from_now_on(key, ready.clone());
    }

    pub(super) fn has(&self, sandbox: &SandboxId) -> bool {
        self.known.contains(sandbox)
    }

    pub(super) fn forget(&mut self, sandbox: &SandboxId) -> bool {
        if !self.known.remove(sandbox) {
            return false;
        }
        for pool in self.pools.values_mut() {
            pool.ready.retain(|ready| ready.sandbox != *sandbox);
            pool.making.remove(sandbox);
        }
        true
    }

    pub(super) fn keep_only(&mut self, running: impl Fn(&SandboxId) -> bool) {
        for pool in self.pools.values_mut() {
            for gone in pool.ready.extract_if(.., |ready| !running(&ready.sandbox)) {
                self.known.remove(&gone.sandbox);
            }
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.pools.values().map(|pool| pool.ready.len()).sum()
    }

    pub(super) fn drop_of(&mut self, template: &TemplateId) -> Vec<SandboxId> {
        let gone = self
            .pools
            .extract_if(|_, pool| pool.request.template == *template);
        let gone = gone.flat_map(|(_, pool)| pool.ready);
        let gone: Vec<_> = gone.map(|ready| ready.sandbox).collect();
        for sandbox in &gone {
            self.known.remove(sandbox);
        }
        gone
    }

    pub(super) fn drop_all(&mut self) -> Vec<SandboxId> {
        self.pools.clear();
        self.known.drain().collect()
    }

    /// One of a pool is being made under this name.
    pub(super) fn begin(&mut self, key: &Key, sandbox: &SandboxId) {
        if let Some(pool) = self.pools.get_mut(key) {
            pool.making.insert(sandbox.clone());
            self.known.insert(sandbox.clone());
        }
    }

    /// It waits from now on. Whether it is wanted still.
    pub(super) fn made(&mut self, key: &Key, sandbox: &SandboxId) -> bool {
        let until = Instant::now() + self.limits.idle;
        let sandbox = sandbox.clone();
        let waits = self.wait_from_now_on(key, Ready { sandbox, until });
        if let Some(pool) = self.pools.get_mut(key).filter(|_| waits) {
            (pool.failures, pool.not_before) = (0, None);
        }
        waits
    }

    fn wait_from_now_on(&mut self, key: &Key, ready: Ready) -> bool {
        let pool = self.pools.get_mut(key);
        // Its pool may have been dropped since, and made anew.
        let Some(pool) = pool.filter(|pool| pool.making.contains(&ready.sandbox)) else {
            self.known.remove(&ready.sandbox);
            return false;
        };
        pool.making.remove(&ready.sandbox);
        pool.ready.push(ready);
        true
    }

    pub(super) fn failed(&mut self, key: &Key, sandbox: &SandboxId) {
        self.forget(sandbox);
        if let Some(pool) = self.pools.get_mut(key) {
            let pause = RETRY_MIN * 2_u32.saturating_pow(pool.failures.min(16));
            pool.failures = pool.failures.saturating_add(1);
            pool.not_before = Some(Instant::now() + pause.min(RETRY_MAX));
        }
    }

    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.let_go(now);
        let making: usize = self.pools.values().map(|pool| pool.making.len()).sum();
        let wanting = self.pools.iter().filter(|(_, pool)| {
            let target = pool.uses.len().min(self.limits.size_per_template);
            pool.size() < target && pool.not_before.is_none_or(|at| at <= now)
        });
        // The one that has least, and among those the one that was asked for last.
        let first = wanting.min_by_key(|(_, pool)| {
            let age = pool.last_use().map(|at| now.saturating_duration_since(at));
            (pool.size(), age)
        });
        let Some((key, pool)) = first.filter(|_| making < MAKING_MAX) else {
            return Next::Wait(self.next_change(now));
        };
        let total: usize = self.pools.values().map(Pool::size).sum();
        if total < self.limits.size {
            return Next::Make(key.clone(), Box::new(pool.request.clone()));
        }
        match self.oldest_before(pool) {
            Some(sandbox) => Next::End(sandbox),
            None => Next::Wait(self.next_change(now)),
        }
    }

    /// Of the pool that was asked for longest ago the one that waits for longest, if it has more than
    /// its share.
    fn oldest_before(&self, other: &Pool) -> Option<SandboxId> {
        let full = self.pools.values().filter(|pool| !pool.ready.is_empty());
        let oldest = full.min_by_key(|pool| pool.last_use())?;
        let is_less_wanted = oldest.last_use() < other.last_use();
        let gives = is_less_wanted && oldest.size() > other.size();
        gives.then(|| oldest.ready.first().map(|ready| ready.sandbox.clone()))?
    }

    /// Forgets uses and sandboxes whose time is over.
    fn let_go(&mut self, now: Instant) {
        let idle = self.limits.idle;
        for pool in self.pools.values_mut() {
            pool.uses
                .retain(|at| now.saturating_duration_since(*at) < idle);
            for gone in pool.ready.extract_if(.., |ready| ready.until <= now) {
                self.known.remove(&gone.sandbox);
            }
        }
        self.pools
            .retain(|_, pool| pool.size() > 0 || !pool.uses.is_empty());
    }

    fn next_change(&self, now: Instant) -> Option<Instant> {
        let idle = self.limits.idle;
        let of = |pool: &Pool| {
            let uses = pool.uses.iter().map(move |at| *at + idle);
            let ends = pool.ready.iter().map(|ready| ready.until);
            let times = uses.chain(ends).chain(pool.not_before);
            times.filter(|at| *at > now).min()
        };
        self.pools.values().filter_map(of).min()
    }
}

#[cfg(test)]
mod tests;
