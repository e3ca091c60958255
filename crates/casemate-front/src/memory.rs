//! What an edge knows of sandboxes for a moment.
//!
//! Right or wrong, it costs a request no more than another question: a node that is dialled says that
//! the sandbox is gone or paused, and then what was known is *doubted*, so that whoever repeats it, as
//! a catalog that is behind, is not believed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_types::{Entrance, SandboxId};
use tokio::time::Instant;

/// How long it is not asked again where a sandbox runs.
const FRESH: Duration = Duration::from_secs(5);
/// The same of one that is nowhere.
const ABSENT: Duration = Duration::from_secs(1);
/// How long others have to hear of what a node said.
const DOUBTED: Duration = Duration::from_secs(10);

/// Where a sandbox is, and how its traffic comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) asleep: bool,
    pub(crate) entrance: Entrance,
}

/// What was known and is not so any more. A node's own word is newer than any doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It was woken.
    Asleep,
    /// The node says so itself.
    RunsAt(String),
}

impl Doubt {
    pub(crate) fn contradicts(&self, place: &Place) -> bool {
        match self {
            Self::Asleep => place.asleep,
            Self::RunsAt(node) => !place.asleep && *node == place.node,
        }
    }
}

/// What is remembered of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recalled {
    /// To be believed.
    Place(Place),
    /// It is nowhere.
    Absent,
    /// To be asked: what not to believe, and which node had it last.
    Unsure {
        doubt: Option<Doubt>,
        last: Option<String>,
    },
}

/// At which state of the memory something was recalled. What is found out after that is noted only if
/// nothing else was meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u64);

struct Entry {
    mark: u64,
    known: Known,
    until: Instant,
}

#[derive(Clone)]
enum Known {
    Place(Place),
    Absent,
    Doubt { doubt: Doubt, last: Option<String> },
}

/// See the module.
pub(crate) struct Memory {
    state: Mutex<State>,
    /// Sandboxes of one of the two halves.
    half_max: usize,
}

/// The young half becomes the old one when it is full, and what was old is forgotten.
#[derive(Default)]
struct State {
    young: HashMap<SandboxId, Entry>,
    old: HashMap<SandboxId, Entry>,
    marks: u64,
}

impl Memory {
    /// Of `max` sandboxes at most, those that were asked for last.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            state: Mutex::default(),
            half_max: (max / 2).max(1),
        }
    }

    pub(crate) fn recall(&self, sandbox: &SandboxId) -> (Recalled, Mark) {
        let now = Instant::now();
        let state = self.lock();
        let Some(entry) = state.get(sandbox) else {
            let (doubt, last) = (None, None);
            return (Recalled::Unsure { doubt, last }, Mark(0));
        };
        let is_fresh = now < entry.until;
        let recalled = match &entry.known {
            Known::Place(place) if is_fresh => Recalled::Place(place.clone()),
            Known::Absent if is_fresh => Recalled::Absent,
            Known::Place(place) => Recalled::Unsure {
                doubt: None,
                last: Some(place.node.clone()),
            },
            Known::Absent => Recalled::Unsure {
                doubt: None,
                last: None,
            },
            Known::Doubt { doubt, last } => Recalled::Unsure {
                doubt: is_fresh.then(|| doubt.clone()),
                last: last.clone(),
            },
        };
        (recalled, Mark(entry.mark))
    }

    /// `None`: it is nowhere. One that is asleep is asked for again each time, because what wakes it
    /// need not come this way.
    pub(crate) fn note(&self, sandbox: &SandboxId, place: Option<&Place>, since: Mark) -> Mark {
        let mut state = self.lock();
        if state.mark(sandbox) != since {
            return since;
        }
        let now = Instant::now();
        let (known, until) = match place {
            Some(place) if place.asleep => (Known::Place(place.clone()), now),
            Some(place) => (Known::Place(place.clone()), now + FRESH),
            None => (Known::Absent, now + ABSENT),
        };
        state.put(sandbox, known, until, self.half_max)
    }

    /// What was known at that moment is not so, unless something else is known since; whether it was
    /// still known.
    pub(crate) fn doubt_since(&self, sandbox: &SandboxId, doubt: Doubt, since: Mark) -> bool {
        let is_news = self.is_at(sandbox, since);
        if is_news {
            self.doubt(sandbox, doubt);
        }
        is_news
    }

    /// Whether nothing else became known since then.
    pub(crate) fn is_at(&self, sandbox: &SandboxId, since: Mark) -> bool {
        self.lock().mark(sandbox) == since
    }

    /// Whatever is known is not so.
    pub(crate) fn doubt(&self, sandbox: &SandboxId, doubt: Doubt) {
        let mut state = self.lock();
        let last = match (&doubt, state.get(sandbox).map(|entry| &entry.known)) {
            (Doubt::RunsAt(node), _) => Some(node.clone()),
            (Doubt::Asleep, None | Some(Known::Absent)) => None,
            (Doubt::Asleep, Some(Known::Place(place))) => Some(place.node.clone()),
            (Doubt::Asleep, Some(Known::Doubt { last, .. })) => last.clone(),
        };
        let known = Known::Doubt { doubt, last };
        let until = Instant::now() + DOUBTED;
        state.put(sandbox, known, until, self.half_max);
    }

    /// What is known is asked for again.
    pub(crate) fn age(&self, sandbox: &SandboxId) {
        let mut state = self.lock();
        if let Some(entry) = state.get(sandbox)
            && let Known::Place(_) = entry.known
        {
            let known = entry.known.clone();
            state.put(sandbox, known, Instant::now(), self.half_max);
        }
    }

    pub(crate) fn len(&self) -> usize {
        let state = self.lock();
        state.young.len() + state.old.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each statement leaves the maps whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn get(&self, sandbox: &SandboxId) -> Option<&Entry> {
        self.young.get(sandbox).or_else(|| self.old.get(sandbox))
    }

    fn mark(&self, sandbox: &SandboxId) -> Mark {
        Mark(self.get(sandbox).map_or(0, |entry| entry.mark))
    }

    fn put(&mut self, sandbox: &SandboxId, known: Known, until: Instant, half_max: usize) -> Mark {
        self.old.remove(sandbox);
        if self.young.len() >= half_max && !self.young.contains_key(sandbox) {
            self.old = std::mem::take(&mut self.young);
        }
        self.marks += 1;
        let mark = self.marks;
        let entry = Entry { mark, known, until };
        self.young.insert(sandbox.clone(), entry);
        Mark(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: &str, asleep: bool) -> Place {
        Place {
            node: node.into(),
            asleep,
            entrance: Entrance::default(),
        }
    }

    fn unsure(doubt: Option<Doubt>, last: Option<&str>) -> Recalled {
        let last = last.map(str::to_owned);
        Recalled::Unsure { doubt, last }
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_is_known_for_seconds_and_then_whom_to_ask() {
        let (memory, id) = (Memory::new(8), SandboxId::random());
        let (nothing, mark) = memory.recall(&id);
        assert_eq!(nothing, unsure(None, None));
        memory.note(&id, Some(&at("a", false)), mark);
        assert_eq!(memory.recall(&id).0, Recalled::Place(at("a", false)));
        tokio::time::advance(FRESH).await;
        let (stale, mark) = memory.recall(&id);
        assert_eq!(stale, unsure(None, Some("a")));
        memory.note(&id, None, mark);
        assert_eq!(memory.recall(&id).0, Recalled::Absent);
        tokio::time::advance(ABSENT).await;
        let (over, mark) = memory.recall(&id);
        assert_eq!(over, unsure(None, None));
        memory.note(&id, Some(&at("b", true)), mark);
        assert_eq!(memory.recall(&id).0, unsure(None, Some("b")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_outlasts_what_was_found_out_before_it() {
        let (memory, id) = (Memory::new(8), SandboxId::random());
        let (_, mark) = memory.recall(&id);
        let doubt = Doubt::RunsAt("a".into());
        memory.doubt(&id, doubt.clone());
        memory.note(&id, Some(&at("a", false)), mark);
        let (recalled, mark) = memory.recall(&id);
        assert_eq!(recalled, unsure(Some(doubt.clone()), Some("a")));
        for (place, contradicts) in [
            (at("a", false), true),
            (at("a", true), false),
            (at("b", false), false),
        ] {
            assert_eq!(doubt.contradicts(&place), contradicts, "{place:?}");
        }
        let known = memory.note(&id, Some(&at("a", true)), mark);
        assert!(!memory.doubt_since(&id, doubt.clone(), mark), "it is old");
        assert!(memory.is_at(&id, known));
        memory.doubt(&id, Doubt::Asleep);
        let woken = unsure(Some(Doubt::Asleep), Some("a"));
        assert_eq!(memory.recall(&id).0, woken);
        assert!(Doubt::Asleep.contradicts(&at("b", true)));
        tokio::time::advance(DOUBTED).await;
        assert_eq!(memory.recall(&id).0, unsure(None, Some("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded_and_keeps_the_newest() {
        let memory = Memory::new(8);
        let all: Vec<_> = (0..100).map(|_| SandboxId::random()).collect();
        for id in &all {
            let (_, mark) = memory.recall(id);
            memory.note(id, Some(&at("a", false)), mark);
            assert!(memory.len() <= 8);
        }
        for id in &all[96..] {
            assert_eq!(memory.recall(id).0, Recalled::Place(at("a", false)));
        }
        assert_eq!(memory.recall(&all[0]).0, unsure(None, None));
    }
}
