//! Who listens to what in this process, and what waits for each of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::{BACKLOG_MAX, Notice};

/// Hands events on to the subscriptions of one process.
pub(crate) struct Hub {
    listeners: Mutex<Listeners>,
    /// Raised with each change of the topics that somebody listens to.
    changed: watch::Sender<u64>,
}

struct Listeners {
    next_id: u64,
    by_topic: HashMap<String, HashMap<u64, Arc<Backlog>>>,
    hearing: Hearing,
}

/// Which topics' events reach this process at all.
enum Hearing {
    All,
    These(HashSet<String>),
}

/// What waits for one subscription.
struct Backlog {
    kind: &'static str,
    topics: Vec<String>,
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Default)]
struct Waiting {
    /// All topics were heard once; what came before is in nobody's order.
    has_begun: bool,
    notices: VecDeque<Notice>,
}

impl Listeners {
    fn of(&self, topic: &str) -> impl Iterator<Item = &Arc<Backlog>> {
        self.by_topic
            .get(topic)
            .into_iter()
            .flat_map(HashMap::values)
    }
}

impl Hearing {
    fn has_all(&self, topics: &[String]) -> bool {
        match self {
            Self::All => true,
            Self::These(heard) => topics.iter().all(|topic| heard.contains(topic)),
        }
    }
}

impl Hub {
    /// Of a process that only listens to itself.
    pub(crate) fn within() -> Arc<Self> {
        Self::new(Hearing::All)
    }

    /// Of one that hears what somebody says that it [`hears`](Self::hears).
    pub(crate) fn of_many() -> Arc<Self> {
        Self::new(Hearing::These(HashSet::new()))
    }

    fn new(hearing: Hearing) -> Arc<Self> {
        Arc::new(Self {
            listeners: Mutex::new(Listeners {
                next_id: 0,
                by_topic: HashMap::new(),
                hearing,
            }),
            changed: watch::Sender::new(0),
        })
    }

    /// Begins with a gap as soon as all topics are heard. `kind` sets apart what this process and
    /// its clients name alike; events come without it.
    pub(crate) fn subscribe(self: &Arc<Self>, kind: &'static str, topics: &[&str]) -> Subscription {
        let topics: Vec<String> = topics
            .iter()
            .map(|topic| format!("{kind}{topic}"))
            .collect();
        let backlog = Arc::new(Backlog::new(kind, topics));
        let mut listeners = self.lock();
        listeners.next_id += 1;
        let id = listeners.next_id;
        for topic in &backlog.topics {
            let of_topic = listeners.by_topic.entry(topic.clone()).or_default();
            of_topic.insert(id, Arc::clone(&backlog));
        }
        if listeners.hearing.has_all(&backlog.topics) {
            backlog.gap();
        }
        drop(listeners);
        self.changed.send_modify(|count| *count += 1);
        Subscription {
            hub: Arc::clone(self),
            id,
            backlog,
        }
    }

    /// Hands one event to all that listen to its topic.
    pub(crate) fn tell(&self, topic: &str, payload: &[u8]) {
        let listeners = self.lock();
        for backlog in listeners.of(topic) {
            backlog.push(topic, payload);
        }
    }

    /// From now on what is said of `topic` arrives; what was said before may be missing.
    pub(crate) fn hears(&self, topic: &str) {
        let mut listeners = self.lock();
        if let Hearing::These(heard) = &mut listeners.hearing {
            heard.insert(topic.to_owned());
        }
        for backlog in listeners.of(topic) {
            if listeners.hearing.has_all(&backlog.topics) {
                backlog.gap();
            }
        }
    }

    /// Nothing arrives any more.
    pub(crate) fn went_deaf(&self) {
        if let Hearing::These(heard) = &mut self.lock().hearing {
            heard.clear();
        }
    }

    /// Nothing of `topic` will arrive any more; `false`: somebody listens to it, so it must.
    pub(crate) fn went_deaf_to(&self, topic: &str) -> bool {
        let mut listeners = self.lock();
        if listeners.by_topic.contains_key(topic) {
            return false;
        }
        if let Hearing::These(heard) = &mut listeners.hearing {
            heard.remove(topic);
        }
        true
    }

    /// The topics that somebody listens to.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.lock().by_topic.keys().cloned().collect()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    // No holder panics half-way: what is behind the lock is whole after each statement.
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backlog {
    fn new(kind: &'static str, topics: Vec<String>) -> Self {
        Self {
            kind,
            topics,
            waiting: Mutex::default(),
            more: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, topic: &str, payload: &[u8]) {
        let mut waiting = self.lock();
        if !waiting.has_begun {
            return;
        }
        if waiting.notices.len() >= BACKLOG_MAX {
            waiting.notices.clear();
            waiting.notices.push_back(Notice::Gap);
        }
        waiting.notices.push_back(Notice::Event {
            topic: topic.strip_prefix(self.kind).unwrap_or(topic).to_owned(),
            payload: payload.to_owned(),
        });
        self.more.notify_one();
    }

    /// What came before it is of no use: the receiver reads all of it again.
    fn gap(&self) {
        let mut waiting = self.lock();
        waiting.has_begun = true;
        waiting.notices.clear();
        waiting.notices.push_back(Notice::Gap);
        self.more.notify_one();
    }
}

/// Topics that somebody listens to; dropping it ends that.
pub struct Subscription {
    hub: Arc<Hub>,
    id: u64,
    backlog: Arc<Backlog>,
}

impl Subscription {
    /// The next notice, in the order in which they came; waits without limit.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.backlog.lock().notices.pop_front() {
                return notice;
            }
            self.backlog.more.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut listeners = self.hub.lock();
        for topic in &self.backlog.topics {
            if let Some(of_topic) = listeners.by_topic.get_mut(topic) {
                of_topic.remove(&self.id);
                if of_topic.is_empty() {
                    listeners.by_topic.remove(topic);
                }
            }
        }
        drop(listeners);
        self.hub.changed.send_modify(|count| *count += 1);
    }
}
