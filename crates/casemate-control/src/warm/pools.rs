//! Which sandboxes wait, and how many should. No clock of its own, and nothing that waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use casemate_rpc::CreateRequest;
use casemate_types::{SandboxId, TeamId, TemplateId};
use tokio::time::Instant;

use super::Key;
use crate::config::WarmPoolConfig;

/// Sandboxes of all pools that nodes are asked for at once: those that clients wait for come first.
/// Their start commands run as long as they like.
const PLACING_MAX: usize = 2;
/// Pools of one team, which may ask for a network of its own each time.
const POOLS_MAX: usize = 16;
/// After so long a pool that could not be filled is tried again; doubled with each time.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Whoever asks is answered before the next one is made, on the same processors.
const CALM: Duration = Duration::from_millis(20);
/// One that ends so soon is not given away any more.
const LEFT_MIN: Duration = Duration::from_secs(2);

pub(super) struct Pools {
    limits: WarmPoolConfig,
    pools: HashMap<Key, Pool>,
    /// Those that wait, are being made, or are being given away; each with its node, once that was
    /// asked for it.
    known: HashMap<SandboxId, Option<String>>,
    /// Those among them that a node was asked for and is making.
    placing: HashSet<SandboxId>,
    /// None is begun before.
    calm_until: Option<Instant>,
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
    pub(super) node: String,
    /// When the node ends it.
    until: Instant,
}

/// One that is not wanted any more, where a node has it or makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) sandbox: SandboxId,
    pub(super) node: String,
}

impl From<Ready> for Gone {
    fn from(ready: Ready) -> Self {
        Self {
            sandbox: ready.sandbox,
            node: ready.node,
        }
    }
}

/// What is to be done.
pub(super) enum Next {
    /// One more is wanted.
    Make(Key, Box<CreateRequest>),
    /// This one's place is wanted for others.
    End(Gone),
    /// Nothing, until something changes or this time has come.
    Wait(Option<Instant>),
}

impl Pool {
    fn size(&self) -> usize {
        self.ready.len() + self.making.len()
    }

    /// The next one is made later.
    fn fail(&mut self) {
        let pause = RETRY_MIN * 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause.min(RETRY_MAX));
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
            known: HashMap::new(),
            placing: HashSet::new(),
            calm_until: None,
        }
    }

    /// Those that are not wanted any more are to be ended.
    #[must_use]
    pub(super) fn used(&mut self, key: &Key, request: CreateRequest) -> Vec<Gone> {
        if self.limits.size == 0 || self.limits.size_per_template == 0 {
            return Vec::new();
        }
        let gone = match self.pools.contains_key(key) {
            true => Vec::new(),
            false => self.make_room(&key.team),
        };
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
        gone
    }

    /// Drops the one of a team's pools that it asked for longest ago, if it has as many as it may.
    fn make_room(&mut self, team: &TeamId) -> Vec<Gone> {
        let own = self.pools.iter().filter(|(key, _)| key.team == *team);
        let (count, oldest) = (own.clone().count(), own.min_by_key(|(_, p)| p.last_use()));
        match oldest.map(|(key, _)| key.clone()) {
            Some(oldest) if count >= POOLS_MAX => self.drop_where(|key, _| *key == oldest),
            Some(_) | None => Vec::new(),
        }
    }

    pub(super) fn take(&mut self, key: &Key) -> Option<Ready> {
        let now = Instant::now();
        let pool = self.pools.get_mut(key)?;
        let last = pool.ready.pop_if(|ready| ready.until > now + LEFT_MIN)?;
        // As long as that again the pools are filled, however often they are asked.
        if self.calm_until.is_none_or(|until| now >= until + CALM) {
            self.calm_until = Some(now + CALM);
        }
        // It counts as being made until it is given away or put back.
        pool.making.insert(last.sandbox.clone());
        Some(last)
    }

    /// One of them serves who asked for it.
    pub(super) fn given(&mut self, key: &Key) {
        if let Some(pool) = self.pools.get_mut(key) {
            pool.failures = 0;
        }
    }

    /// It was taken and is not given away.
    pub(super) fn put_back(&mut self, key: &Key, ready: &Ready) {
        self.wait_from_now_on(key, ready.clone());
    }

    pub(super) fn has(&self, sandbox: &SandboxId) -> bool {
        self.known.contains_key(sandbox)
    }

    pub(super) fn forget(&mut self, sandbox: &SandboxId) -> bool {
        self.placing.remove(sandbox);
        if self.known.remove(sandbox).is_none() {
            return false;
        }
        for pool in self.pools.values_mut() {
            pool.ready.retain(|ready| ready.sandbox != *sandbox);
            pool.making.remove(sandbox);
        }
        true
    }

    /// It is gone. Where that comes before its time the next one is not made at once.
    pub(super) fn ended(&mut self, sandbox: &SandboxId) -> bool {
        let due = Instant::now() + LEFT_MIN;
        let has = |pool: &Pool| {
            let mut ready = pool.ready.iter();
            ready.any(|ready| ready.sandbox == *sandbox && ready.until > due)
        };
        if let Some(pool) = self.pools.values_mut().find(|pool| has(pool)) {
            pool.fail();
        }
        self.forget(sandbox)
    }

    /// All that wait at a node.
    pub(super) fn ready_at(&self, node: &str) -> HashSet<SandboxId> {
        let ready = self.pools.values().flat_map(|pool| &pool.ready);
        let ready = ready.filter(|ready| ready.node == node);
        ready.map(|ready| ready.sandbox.clone()).collect()
    }

    pub(super) fn waiting(&self) -> usize {
        self.pools.values().map(|pool| pool.ready.len()).sum()
    }

    pub(super) fn drop_of(&mut self, template: &TemplateId) -> Vec<Gone> {
        self.drop_where(|_, pool| pool.request.template == *template)
    }

    /// Those of the builds of the same template before this one.
    pub(super) fn drop_former(&mut self, template: &TemplateId, key: &Key) -> Vec<Gone> {
        self.drop_where(|other, pool| {
            pool.request.template == *template && other.team == key.team && other.build != key.build
        })
    }

    /// Those that wait at a node; others are made in their place.
    pub(super) fn drop_at(&mut self, node: &str) -> Vec<Gone> {
        let waiting = self.pools.values_mut();
        let gone = waiting.flat_map(|pool| pool.ready.extract_if(.., |ready| ready.node == node));
        let gone: Vec<Gone> = gone.map(Gone::from).collect();
        for one in &gone {
            self.known.remove(&one.sandbox);
        }
        gone
    }

    /// Those that are being made of it are ended when they are.
    fn drop_where(&mut self, mut is_unwanted: impl FnMut(&Key, &Pool) -> bool) -> Vec<Gone> {
        let gone = self.pools.extract_if(|key, pool| is_unwanted(key, pool));
        let gone = gone.flat_map(|(_, pool)| pool.ready);
        let gone: Vec<Gone> = gone.map(Gone::from).collect();
        for one in &gone {
            self.known.remove(&one.sandbox);
        }
        gone
    }

    pub(super) fn drop_all(&mut self) -> Vec<Gone> {
        self.pools.clear();
        self.placing.clear();
        let asked = |(sandbox, node)| {
            Some(Gone {
                sandbox,
                node: node?,
            })
        };
        self.known.drain().filter_map(asked).collect()
    }

    /// One of a pool is being made under this name.
    pub(super) fn begin(&mut self, key: &Key, sandbox: &SandboxId) {
        if let Some(pool) = self.pools.get_mut(key) {
            pool.making.insert(sandbox.clone());
            self.known.insert(sandbox.clone(), None);
            self.placing.insert(sandbox.clone());
        }
    }

    /// A node is being asked for it.
    pub(super) fn asked(&mut self, sandbox: &SandboxId, node: &str) {
        if let Some(at) = self.known.get_mut(sandbox) {
            *at = Some(node.to_owned());
        }
    }

    /// A node has it; it starts.
    pub(super) fn placed(&mut self, sandbox: &SandboxId) {
        self.placing.remove(sandbox);
    }

    /// It waits from now on. Whether it is wanted still.
    pub(super) fn made(&mut self, key: &Key, sandbox: &SandboxId) -> bool {
        let until = Instant::now() + self.limits.idle;
        let Some(Some(node)) = self.known.get(sandbox).cloned() else {
            return false;
        };
        let sandbox = sandbox.clone();
        let ready = Ready {
            sandbox,
            node,
            until,
        };
        let waits = self.wait_from_now_on(key, ready);
        if let Some(pool) = self.pools.get_mut(key).filter(|_| waits) {
            pool.not_before = None;
        }
        waits
    }

    fn wait_from_now_on(&mut self, key: &Key, ready: Ready) -> bool {
        self.placing.remove(&ready.sandbox);
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
            pool.fail();
        }
    }

    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.let_go(now);
        let wanting = self.pools.iter().filter(|(_, pool)| {
            let target = pool.uses.len().min(self.limits.size_per_template);
            pool.size() < target && pool.not_before.is_none_or(|at| at <= now)
        });
        // The one that has least, and among those the one that was asked for last.
        let first = wanting.min_by_key(|(_, pool)| {
            let age = pool.last_use().map(|at| now.saturating_duration_since(at));
            (pool.size(), age)
        });
        let calm_until = self.calm_until.filter(|until| *until > now);
        if first.is_some()
            && let Some(until) = calm_until
        {
            return Next::Wait(Some(until));
        }
        let is_free = self.placing.len() < PLACING_MAX;
        let Some((key, pool)) = first.filter(|_| is_free) else {
            return Next::Wait(self.next_change(now));
        };
        let total: usize = self.pools.values().map(Pool::size).sum();
        if total < self.limits.size {
            return Next::Make(key.clone(), Box::new(pool.request.clone()));
        }
        match self.oldest_before(&key.team, pool) {
            Some(gone) => Next::End(gone),
            None => Next::Wait(self.next_change(now)),
        }
    }

    /// Of the pool that was asked for longest ago the one that waits for longest, if it has more than
    /// the one that wants one. Another team keeps its last one.
    fn oldest_before(&self, team: &TeamId, other: &Pool) -> Option<Gone> {
        let gives = |(key, pool): &(&Key, &Pool)| {
            let is_less_wanted = pool.last_use() < other.last_use();
            let is_spare = key.team == *team || pool.size() > 1;
            !pool.ready.is_empty() && is_less_wanted && is_spare && pool.size() > other.size()
        };
        let givers = self.pools.iter().filter(gives);
        // A team's own first.
        let oldest = givers.min_by_key(|(key, pool)| (key.team != *team, pool.last_use()));
        Some(oldest?.1.ready.first()?.clone().into())
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
