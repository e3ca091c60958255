//! What is being done to sandboxes right now, each by one task at a time (`api.md` 3.3).
//!
//! The locks of [`crate::locks`] put changes in a row; this says which change goes on, so that
//! another request can join it, wait for it or be refused by its name. Other servers are told by a
//! lease of the catalog ([`elsewhere`]): a courtesy, since rows change by their generations and the
//! node puts what it is asked in a row.

mod elsewhere;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_types::SandboxId;
use tokio::sync::watch;

pub(crate) use elsewhere::Elsewhere;
use elsewhere::{Anothers, Told};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Pausing,
    Resuming,
    Snapshotting,
    Killing,
}

impl Doing {
    /// As in E2B's texts.
    pub(crate) fn participle(self) -> &'static str {
        match self {
            Self::Pausing => "paused",
            Self::Resuming => "resumed",
            Self::Snapshotting => "snapshotted",
            Self::Killing => "killed",
        }
    }

    /// What [`Self::state`] says.
    fn parse(word: &str) -> Option<Self> {
        let all = [
            Self::Pausing,
            Self::Resuming,
            Self::Snapshotting,
            Self::Killing,
        ];
        all.into_iter().find(|doing| doing.state() == word)
    }

    /// As E2B names the state.
    pub(crate) fn state(self) -> &'static str {
        match self {
            Self::Pausing => "pausing",
            Self::Resuming => "resuming",
            Self::Snapshotting => "snapshotting",
            Self::Killing => "killing",
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Transitions {
    here: Arc<Mutex<HashMap<SandboxId, UnderWay>>>,
    elsewhere: Option<Arc<Elsewhere>>,
}

struct UnderWay {
    doing: Doing,
    /// Whether it was done.
    done: watch::Sender<bool>,
}

/// One change, until it is dropped.
pub(crate) struct Turn {
    all: Transitions,
    sandbox: SandboxId,
    told: Option<Told>,
}

/// Somebody else's change.
pub(crate) struct Other {
    pub(crate) doing: Doing,
    whose: Whose,
}

enum Whose {
    Ours(watch::Receiver<bool>),
    Anothers(Anothers),
}

impl Other {
    /// Returns when it is over; whether it was done, where that is known.
    pub(crate) async fn over(self) -> Option<bool> {
        match self.whose {
            Whose::Ours(mut done) => {
                // Its sender is dropped then, which is an error here.
                while done.changed().await.is_ok() {}
                let done = *done.borrow();
                Some(done)
            }
            Whose::Anothers(lease) => {
                lease.over().await;
                None
            }
        }
    }

    /// Whether [`Transitions::of`] tells nothing of it.
    pub(crate) fn is_anothers(&self) -> bool {
        matches!(self.whose, Whose::Anothers(_))
    }
}

impl Turn {
    /// What it was taken for is done. Returns when the other servers know that it is over: whoever is
    /// answered after this may ask one of them next.
    pub(crate) async fn done(mut self) {
        if let Some(change) = self.all.lock().get(&self.sandbox) {
            change.done.send_replace(true);
        }
        if let Some(told) = self.told.take() {
            told.over().await;
        }
    }
}

impl Transitions {
    pub(crate) fn beside(elsewhere: Option<Elsewhere>) -> Self {
        Self {
            here: Arc::default(),
            elsewhere: elsewhere.map(Arc::new),
        }
    }

    pub(crate) async fn begin(&self, sandbox: &SandboxId, doing: Doing) -> Result<Turn, Other> {
        let mut turn = self.begin_here(sandbox, doing)?;
        if let Some(elsewhere) = &self.elsewhere {
            turn.told = elsewhere.tell(sandbox, doing).await?;
        }
        Ok(turn)
    }

    fn begin_here(&self, sandbox: &SandboxId, doing: Doing) -> Result<Turn, Other> {
        let mut all = self.lock();
        if let Some(other) = all.get(sandbox) {
            return Err(other.seen());
        }
        let (done, _) = watch::channel(false);
        all.insert(sandbox.clone(), UnderWay { doing, done });
        Ok(Turn {
            all: self.clone(),
            sandbox: sandbox.clone(),
            told: None,
        })
    }

    /// Returns once no other server is at it, as far as that is known.
    pub(crate) async fn over_elsewhere(&self, sandbox: &SandboxId) {
        if let Some(elsewhere) = &self.elsewhere {
            elsewhere.over(sandbox).await;
        }
    }

    /// Of this server's own.
    pub(crate) fn of(&self, sandbox: &SandboxId) -> Option<Other> {
        self.lock().get(sandbox).map(UnderWay::seen)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, UnderWay>> {
        self.here
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

impl UnderWay {
    fn seen(&self) -> Other {
        Other {
            doing: self.doing,
            whose: Whose::Ours(self.done.subscribe()),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.all.lock().remove(&self.sandbox);
    }
}

#[cfg(test)]
mod tests {
    use casemate_catalog::MemoryCatalog;

    use super::*;
    use crate::tasks::Tasks;

    #[tokio::test]
    async fn who_comes_second_sees_what_goes_on_and_when_it_is_over() {
        let (all, id) = (Transitions::default(), SandboxId::random());
        let turn = all.begin(&id, Doing::Pausing).await;
        let Err(other) = all.begin(&id, Doing::Killing).await else {
            panic!("two turns at once");
        };
        assert_eq!(other.doing, Doing::Pausing);
        assert!(all.of(&SandboxId::random()).is_none());
        let waiting = tokio::spawn(other.over());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(turn);
        assert_eq!(waiting.await.unwrap(), Some(false), "it was not done");
        let Ok(turn) = all.begin(&id, Doing::Killing).await else {
            panic!("the first is over");
        };
        let other = all.of(&id).unwrap();
        turn.done().await;
        assert_eq!(other.over().await, Some(true));
        assert!(all.of(&id).is_none());
    }

    #[tokio::test]
    async fn another_server_sees_what_goes_on_and_when_it_is_over() {
        let catalog = Arc::new(MemoryCatalog::new());
        let servers = ["a", "b"].map(|owner| {
            let (leases, tasks) = (Arc::clone(&catalog) as _, Tasks::default());
            Transitions::beside(Some(Elsewhere::new(leases, owner, tasks)))
        });
        let id = SandboxId::random();
        let turn = servers[0].begin(&id, Doing::Resuming).await;
        let Err(other) = servers[1].begin(&id, Doing::Killing).await else {
            panic!("two turns at once");
        };
        assert_eq!(other.doing, Doing::Resuming);
        assert!(other.is_anothers());
        assert!(servers[1].of(&id).is_none(), "one's own alone");
        let waiting = tokio::spawn(other.over());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(turn);
        assert_eq!(waiting.await.unwrap(), None);
        // What is done is over for the other one at once, whoever it asks.
        for n in 0..10 {
            let Ok(turn) = servers[n % 2].begin(&id, Doing::Snapshotting).await else {
                panic!("the one before is over");
            };
            turn.done().await;
        }
    }
}
