//! Who is connected: how many at most, how many from one address, and who goes for whom.
//!
//! A connection without a request costs its client nothing, so it keeps its seat only while there
//! are others: a new connection that finds none free takes the seat of one that was idle for
//! longest. Whoever carries a request, an answer that is not sent yet, or an upgraded stream keeps
//! its seat.

mod activity;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use casemate_types::peer;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::EdgeLimits;

pub(crate) use activity::Activity;

/// Of a bound, the part (one in so many) that is cleared at once, so that one look at every
/// connection serves many new ones.
const CLEARED_PART: usize = 64;
/// Time until the next look when the last one found too few to clear.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// Time between two log lines about want of seats.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// All seats of one edge.
pub(crate) struct Seats {
    plan: Mutex<Plan>,
    seats_max: usize,
    peer_seats_max: usize,
    idle_spared: Duration,
}

#[derive(Default)]
struct Plan {
    taken: HashMap<u64, Taken>,
    next: u64,
    all: Crowd,
    /// By address; those on loopback have none.
    peers: HashMap<IpAddr, Crowd>,
    warned: Option<Instant>,
}

struct Taken {
    peer: Option<IpAddr>,
    activity: Arc<Activity>,
}

/// Connections under one bound.
#[derive(Default)]
struct Crowd {
    seated: usize,
    /// Until then none of them can go, as far as the last look at them told.
    settled_until: Option<Instant>,
}

/// One connection's seat, given back on drop.
pub(crate) struct Seat {
    number: u64,
    seats: Arc<Seats>,
    activity: Arc<Activity>,
}

impl Seats {
    pub(crate) fn new(limits: &EdgeLimits) -> Self {
        Self {
            plan: Mutex::default(),
            seats_max: limits.connections_max,
            peer_seats_max: limits.peer_connections_max(),
            idle_spared: limits.idle_spared,
        }
    }

    /// A seat for a connection that `cut` ends; `None` when none is free and nobody can go.
    pub(crate) fn take(self: &Arc<Self>, peer: SocketAddr, cut: CancellationToken) -> Option<Seat> {
        let peer = peer::counted_as(peer.ip());
        let mut plan = self.plan();
        let crowded = peer.is_some() && plan.crowd(peer).seated >= self.peer_seats_max;
        if crowded && !self.clear(&mut plan, peer, self.peer_seats_max) {
            return None;
        }
        if plan.all.seated >= self.seats_max && !self.clear(&mut plan, None, self.seats_max) {
            plan.forget_absent(peer);
            return None;
        }
        let activity = Arc::new(Activity::new(cut));
        let number = plan.enter(peer, Arc::clone(&activity));
        Some(Seat {
            number,
            seats: Arc::clone(self),
            activity,
        })
    }

    /// Connections that hold a seat.
    pub(crate) fn count(&self) -> usize {
        self.plan().all.seated
    }

    /// Ends those that are idle for longest, of one address or of all. `false`: nobody can go.
    fn clear(&self, plan: &mut Plan, peer: Option<IpAddr>, bound: usize) -> bool {
        let now = Instant::now();
        if plan.crowd(peer).is_settled(now) {
            return false;
        }
        let wanted = (bound / CLEARED_PART).max(1);
        let idle = plan.longest_idle(peer, wanted);
        let spared = |since: &Instant| *since + self.idle_spared > now;
        let (young, old): (Vec<_>, Vec<_>) = idle.into_iter().partition(|(t, _)| spared(t));
        let found = old.len();
        let cleared = old.into_iter().filter(|(_, n)| plan.end(*n)).count();
        if cleared < wanted {
            let next = match young.iter().map(|(since, _)| *since).min() {
                // A request came to one of them just now; others may be left.
                _ if cleared < found => now,
                Some(since) => since + self.idle_spared,
                None => now + self.idle_spared,
            };
            plan.crowd(peer).settled_until = Some(next.max(now + LOOK_PAUSE));
        }
        plan.warn(now, cleared);
        cleared > 0
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn crowd(&mut self, peer: Option<IpAddr>) -> &mut Crowd {
        match peer {
            Some(peer) => self.peers.entry(peer).or_default(),
            None => &mut self.all,
        }
    }

    fn enter(&mut self, peer: Option<IpAddr>, activity: Arc<Activity>) -> u64 {
        self.all.seated += 1;
        if peer.is_some() {
            self.crowd(peer).seated += 1;
        }
        let number = self.next;
        self.next += 1;
        self.taken.insert(number, Taken { peer, activity });
        number
    }

    /// Frees a seat, unless that was done already.
    fn leave(&mut self, number: u64) {
        let Some(Taken { peer, .. }) = self.taken.remove(&number) else {
            return;
        };
        self.all.seated -= 1;
        if peer.is_some() {
            self.crowd(peer).seated -= 1;
            self.forget_absent(peer);
        }
    }

    /// Drops the count of an address from which nobody is connected.
    fn forget_absent(&mut self, peer: Option<IpAddr>) {
        if let Some(ip) = peer
            && self.crowd(peer).seated == 0
        {
            self.peers.remove(&ip);
        }
    }

    /// At most `wanted` connections without a request, in no order, and none that was idle for
    /// longer is left out.
    fn longest_idle(&self, peer: Option<IpAddr>, wanted: usize) -> Vec<(Instant, u64)> {
        let of_crowd = |taken: &Taken| peer.is_none() || taken.peer == peer;
        let mut idle: Vec<_> = self
            .taken
            .iter()
            .filter(|(_, taken)| of_crowd(taken))
            .filter_map(|(number, taken)| Some((taken.activity.idle_since()?, *number)))
            .collect();
        if idle.len() > wanted {
            // By number where the times are equal: first come, first to go.
            idle.select_nth_unstable(wanted);
            idle.truncate(wanted);
        }
        idle
    }

    /// Ends a connection and frees its seat; `false` when a request came to it.
    fn end(&mut self, number: u64) -> bool {
        let ended = self
            .taken
            .get(&number)
            .is_some_and(|taken| taken.activity.end());
        if ended {
            self.leave(number);
        }
        ended
    }

    fn warn(&mut self, now: Instant, cleared: usize) {
        let due = self
            .warned
            .is_none_or(|warned| now.duration_since(warned) >= WARN_EVERY);
        if due {
            self.warned = Some(now);
            warn!(
                open = self.all.seated,
                cleared, "too many connections: idle ones go, and without any new ones are refused"
            );
        }
    }
}

impl Crowd {
    fn is_settled(&self, now: Instant) -> bool {
        self.settled_until.is_some_and(|until| now < until)
    }
}

impl Seat {
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.plan().leave(self.number);
    }
}

#[cfg(test)]
mod tests;
