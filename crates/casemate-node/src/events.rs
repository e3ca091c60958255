//! What the watcher is told, of whom there is one at a time, and what any number of observers are
//! told beside it. What ended while nobody watched is kept for the next watcher.

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
    observers: Vec<mpsc::Sender<NodeEvent>>,
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

    /// The same for one of many, without what is told once.
    pub(crate) fn observe(
        &self,
        running: impl FnOnce() -> Vec<NodeEvent>,
    ) -> mpsc::Receiver<NodeEvent> {
        let mut state = self.lock();
        let first = running();
        let (sender, receiver) = mpsc::channel(LAG_MAX + first.len() + 1);
        for event in first.into_iter().chain([NodeEvent::Synced]) {
            sender
                .try_send(event)
                .expect("the channel was made large enough for these");
        }
        state.observers.push(sender);
        receiver
    }

    /// Whether the watcher hears what is published.
    pub(crate) fn is_watched(&self) -> bool {
        let state = self.lock();
        state.watcher.as_ref().is_some_and(|w| !w.is_closed())
    }

    pub(crate) fn publish(&self, event: NodeEvent) {
        let mut state = self.lock();
        if is_for_all(&event) {
            // One that left or lags hears no more.
            state
                .observers
                .retain(|observer| observer.try_send(event.clone()).is_ok());
        }
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

/// Whether observers hear of it as well.
fn is_for_all(event: &NodeEvent) -> bool {
    match event {
        NodeEvent::Running(_)
        | NodeEvent::Paused(_)
        | NodeEvent::Synced
        | NodeEvent::Ended { .. }
        | NodeEvent::Heartbeat(_) => true,
        NodeEvent::Samples(_) | NodeEvent::Log { .. } | NodeEvent::MemoryFull { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use casemate_types::{EndReason, SandboxId, Timestamp};

    use super::*;

    fn ended() -> NodeEvent {
        NodeEvent::Ended {
            sandbox: SandboxId::random(),
            reason: EndReason::Killed,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn observers_hear_of_what_changes_and_take_nothing_from_the_watcher() {
        let events = Events::default();
        let unseen = ended();
        events.publish(unseen.clone());
        let mut observers = [events.observe(Vec::new), events.observe(Vec::new)];
        for observer in &mut observers {
            assert_eq!(observer.try_recv().unwrap(), NodeEvent::Synced);
            assert!(
                observer.try_recv().is_err(),
                "what was told before is the watcher's"
            );
        }
        assert!(!events.is_watched());
        let mut watcher = events.watch(Vec::new);
        assert_eq!(watcher.try_recv().unwrap(), unseen);
        assert_eq!(watcher.try_recv().unwrap(), NodeEvent::Synced);
        let (now, samples) = (ended(), NodeEvent::Samples(Vec::new()));
        events.publish(samples.clone());
        events.publish(now.clone());
        assert_eq!(watcher.try_recv().unwrap(), samples);
        assert_eq!(watcher.try_recv().unwrap(), now);
        for observer in &mut observers {
            assert_eq!(observer.try_recv().unwrap(), now);
        }
        let [left, stays] = observers;
        drop(left);
        events.publish(now);
        assert_eq!(events.lock().observers.len(), 1);
        drop(stays);
    }

    #[test]
    fn one_that_lags_loses_its_channel_and_nobody_else_anything() {
        let events = Events::default();
        let (mut slow, mut watcher) = (events.observe(Vec::new), events.watch(Vec::new));
        for _ in 0..=LAG_MAX {
            while watcher.try_recv().is_ok() {}
            events.publish(ended());
        }
        let mut heard = 0;
        while slow.try_recv().is_ok() {
            heard += 1;
        }
        assert_eq!(
            heard,
            LAG_MAX + 1,
            "the word that all was told, and as many as may lag"
        );
        assert!(matches!(
            slow.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        ));
        assert!(events.is_watched());
    }
}
