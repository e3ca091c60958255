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
}

#[derive(Clone, Default)]
pub(crate) struct Transitions(Arc<Mutex<HashMap<SandboxId, UnderWay>>>);

struct UnderWay {
    doing: Doing,
    done: watch::Sender<()>,
}

/// One change, until it is dropped.
pub(crate) struct Turn {
    all: Transitions,
    sandbox: SandboxId,
}

/// Somebody else's change.
pub(crate) struct Other {
    pub(crate) doing: Doing,
    done: watch::Receiver<()>,
}

impl Other {
    /// Returns when it is over, however it ended.
    pub(crate) async fn over(mut self) {
        // Its sender is dropped then, which is an error here.
        let _ = self.done.changed().await;
    }
}

impl Transitions {
    pub(crate) fn begin(&self, sandbox: &SandboxId, doing: Doing) -> Result<Turn, Other> {
        let mut all = self.lock();
        if let Some(other) = all.get(sandbox) {
            return Err(other.seen());
        }
        let (done, _) = watch::channel(());
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
        waiting.await.unwrap();
        assert!(all.begin(&id, Doing::Killing).is_ok());
    }
}
