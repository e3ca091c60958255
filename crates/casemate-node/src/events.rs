//! What the one watcher is told. What ended while nobody watched is kept for the next watcher.

use std::collections::VecDeque;
use std::sync::Mutex;

use casemate_rpc::NodeEvent;
use tokio::sync::mpsc;

/// Events that a watcher may lag behind; then it loses its watch and begins anew.
const LAG_MAX: usize = 8192;
/// Ends, of sandboxes and of processes in them, kept while nobody watches; the oldest are forgotten, and control finds them out by what
/// does not run any more.
const UNSEEN_MAX: usize = 4096;

#[derive(Default)]
pub(crate) struct Events {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watcher: Option<mpsc::Sender<NodeEvent>>,
    unseen: VecDeque<NodeEvent>,
}

impl Events {
    /// Starts a watch with what `running` names. The table of sandboxes is read under our lock, so
    /// that an event is either in it or comes after it.
    pub(crate) fn watch(
        &self,
        running: impl FnOnce() -> Vec<NodeEvent>,
    ) -> mpsc::Receiver<NodeEvent> {
        let mut state = self.lock();
        let first = running();
        let room = LAG_MAX + first.len() + state.unseen.len() + 1;
        let (sender, receiver) = mpsc::channel(room);
        let unseen = std::mem::take(&mut state.unseen);
        for event in first.into_iter().chain(unseen).chain([NodeEvent::Synced]) {
            sender
                .try_send(event)
                .expect("the channel was made large enough for these");
        }
        state.watcher = Some(sender);
        receiver
    }

    /// Whether anybody hears what is published.
    pub(crate) fn is_watched(&self) -> bool {
        let state = self.lock();
        state.watcher.as_ref().is_some_and(|w| !w.is_closed())
    }

    pub(crate) fn publish(&self, event: NodeEvent) {
        let mut state = self.lock();
        let sent = match &state.watcher {
            Some(watcher) => watcher.try_send(event.clone()).is_ok(),
            None => false,
        };
        if sent {
            return;
        }
        state.watcher = None;
        if matches!(
            event,
            NodeEvent::Ended { .. } | NodeEvent::MemoryFull { .. }
        ) {
            if state.unseen.len() == UNSEEN_MAX {
                state.unseen.pop_front();
            }
            state.unseen.push_back(event);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}
