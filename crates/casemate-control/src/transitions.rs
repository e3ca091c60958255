//! What is being done to sandboxes right now, each by one task at a time (`api.md` 3.3).
//!
//! The locks of [`crate::locks`] put changes in a row; this says which change goes on, so that
//! another request can join it, wait for it or be refused by its name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use casemate_types::SandboxId;
use tokio::sync::watch;

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
pub(crate) struct Transitions(Arc<Mutex<HashMap<SandboxId, UnderWay>>>);

struct UnderWay {
    doing: Doing,
    /// Whether it was done.
    done: watch::Sender<bool>,
}

/// One change, until it is dropped.
pub(crate) struct Turn {
    all: Transitions,
    sandbox: SandboxId,
}

/// Somebody else's change.
pub(crate) struct Other {
    pub(crate) doing: Doing,
    done: watch::Receiver<bool>,
}

impl Other {
    /// Returns when it is over; whether it was done.
    pub(crate) async fn over(mut self) -> bool {
        // Its sender is dropped then, which is an error here.
        while self.done.changed().await.is_ok() {}
        *self.done.borrow()
    }
}

impl Turn {
    /// What it was taken for is done.
    pub(crate) fn done(self) {
        if let Some(change) = self.all.lock().get(&self.sandbox) {
            change.done.send_replace(true);
        }
    }
}

impl Transitions {
    pub(crate) fn begin(&self, sandbox: &SandboxId, doing: Doing) -> Result<Turn, Other> {
        let mut all = self.lock();
        if let Some(other) = all.get(sandbox) {
            return Err(other.seen());
        }
        let (done, _) = watch::channel(false);
        all.insert(sandbox.clone(), UnderWay { doing, done });
        Ok(Turn {
            all: self.clone(),
            sandbox: sandbox.clone(),
        })
    }

    pub(crate) fn of(&self, sandbox: &SandboxId) -> Option<Other> {
        self.lock().get(sandbox).map(UnderWay::seen)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, UnderWay>> {
        self.0
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

impl UnderWay {
    fn seen(&self) -> Other {
        Other {
            doing: self.doing,
            done: self.done.subscribe(),
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
    use super::*;

    #[tokio::test]
    async fn who_comes_second_sees_what_goes_on_and_when_it_is_over() {
        let (all, id) = (Transitions::default(), SandboxId::random());
        let turn = all.begin(&id, Doing::Pausing);
        let Err(other) = all.begin(&id, Doing::Killing) else {
            panic!("two turns at once");
        };
        assert_eq!(other.doing, Doing::Pausing);
        assert!(all.of(&SandboxId::random()).is_none());
        let waiting = tokio::spawn(other.over());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(turn);
        assert!(!waiting.await.unwrap(), "it was not done");
        let Ok(turn) = all.begin(&id, Doing::Killing) else {
            panic!("the first is over");
        };
        let other = all.of(&id).unwrap();
        turn.done();
        assert!(other.over().await);
        assert!(all.of(&id).is_none());
    }
}
