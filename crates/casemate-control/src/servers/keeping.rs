//! A lease of the store: taken whenever it is free, kept for as long as this server lives and can do
//! what it is for.
//!
//! It counts as lost before it can be another's: by a clock that was started before it was asked
//! for, and a while ahead of its end.

use casemate_store::LeaseTaken;
use casemate_types::chain;
use casemate_types::pauses::drawn;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::Control;
use crate::config::ServerTimes;

/// Before the names of nodes in those of their leases.
pub(crate) const NODES: &str = "node/";

/// The name of the lease of whoever watches a node for all.
pub(crate) fn of_node(node: &str) -> String {
    format!("{NODES}{node}")
}

/// For ever; `held` says whether it is ours. While it is not `wanted` others may have it.
pub(crate) async fn keep(
    control: &Control,
    times: ServerTimes,
    name: &str,
    held: &watch::Sender<bool>,
    mut wanted: watch::Receiver<bool>,
) {
    let mut ours = Ours { held, until: None };
    let lasts = times.lease_lasts;
    loop {
        if !*wanted.borrow_and_update() {
            let had = ours.until.is_some();
            ours.lose();
            if had && let Err(error) = control.store.lease_give(name, &control.owner).await {
                tracing::debug!(error = chain(&error), "lease {name} runs out by itself");
            }
            if wanted.wait_for(|wanted| *wanted).await.is_err() {
                return;
            }
        }
        let asked = Instant::now();
        let taking = control.store.lease_take(name, &control.owner, lasts);
        let taken = ours.while_held(taking).await;
        let mut next = asked + times.lease_every;
        match taken {
            Ok(LeaseTaken::Held { .. }) => ours.hold(asked + lasts - lasts / 5),
            Ok(LeaseTaken::HeldBy { left, .. }) => {
                ours.lose();
                next = next.min(Instant::now() + left);
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "could not take lease {name}");
                next = asked + drawn(times.lease_every);
            }
        }
        let waiting = async {
            tokio::select! {
                () = sleep_until(next) => {}
                _ = wanted.wait_for(|wanted| !*wanted) => {}
            }
        };
        ours.while_held(waiting).await;
    }
}

struct Ours<'a> {
    held: &'a watch::Sender<bool>,
    until: Option<Instant>,
}

impl Ours<'_> {
    fn hold(&mut self, until: Instant) {
        self.until = Some(until);
        self.say(Instant::now() < until);
    }

    fn lose(&mut self) {
        self.until = None;
        self.say(false);
    }

    fn say(&self, held: bool) {
        self.held
            .send_if_modified(|was| std::mem::replace(was, held) != held);
    }

    /// Waits for something, and loses the lease meanwhile when its time comes.
    async fn while_held<T>(&mut self, something: impl Future<Output = T>) -> T {
        tokio::pin!(something);
        if let Some(until) = self.until {
            tokio::select! {
                done = &mut something => return done,
                () = sleep_until(until) => self.lose(),
            }
        }
        something.await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_lost_on_time_whatever_is_waited_for() {
        let held = watch::Sender::new(false);
        let mut ours = Ours {
            held: &held,
            until: None,
        };
        ours.hold(Instant::now() + Duration::from_secs(8));
        assert!(*held.borrow());
        let mut seen = held.subscribe();
        let slow = async {
            let lost = seen.wait_for(|held| !*held).await;
            lost.map(drop).map(|()| Instant::now())
        };
        let begun = Instant::now();
        let lost_at = ours.while_held(slow).await.unwrap();
        assert_eq!(lost_at - begun, Duration::from_secs(8));
        // An answer that came too late for its time.
        ours.hold(begun);
        assert!(!*held.borrow());
    }
}
