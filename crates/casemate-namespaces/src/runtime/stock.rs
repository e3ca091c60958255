//! Tasks beside the sandboxes: filling the stock, clearing away what was used. Starts all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use casemate_failpoint::{self as failpoint, Point};
use casemate_net::NetSlot;
use casemate_types::{Resources, chain};
use tokio::sync::mpsc;

use super::{Shared, blocking, copies, lock};
use crate::pool::Again;
use crate::shelf::Shelf;

/// What layers in stock may hold: a sandbox's default. Another size costs a create one call.
pub(super) const LAYER_BYTES: u64 = (Resources::BASE.disk_mib as u64) << 20;
/// How long a failed filling waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Used parts are gathered for so long: the kernel takes away many as fast as one, and whoever
/// makes one sandbox after the other is rarely disturbed.
const GATHER: Duration = Duration::from_secs(1);
const GATHER_POLL: Duration = Duration::from_millis(50);
/// The longest that one batch of filling or clearing waits for creates to pause, and how often it
/// looks.
const CALM_PATIENCE: Duration = Duration::from_secs(1);
const CALM_POLL: Duration = Duration::from_millis(10);
/// How long no create may have begun before a stock that is nearly full is filled up.
const TOP_UP: Duration = Duration::from_secs(1);
/// How soon the accounting of deleted layers is freed, which takes one call for each. The file
/// system lets go of it at its next commit, 30 s later at most; of what snapshots share later, so it
/// is looked less and less often while nothing is given up.
const TIDY_AFTER: Duration = Duration::from_secs(15);
const TIDY_AFTER_MAX: Duration = Duration::from_secs(600);
/// How often it is looked whether sandboxes still have room: what is held ready lasts longer than
/// this at the speed of most disks. And how soon again after there was less than wanted.
const ROOM_LOOK: Duration = Duration::from_secs(1);
const ROOM_LOOK_AGAIN: Duration = Duration::from_millis(100);
/// With less left than can be written between two looks it is looked more often, so that it is seen
/// when sandboxes meet the end.
const ROOM_WATCHED: u64 = 4 << 30;
const ROOM_WATCH: Duration = Duration::from_millis(50);
/// With less the kernel refuses some writes already.
const ROOM_FULL: u64 = 64 << 20;
/// Layers made in one go.
const LAYERS_BATCH: usize = 16;

/// Starts them, once.
pub(super) fn start(shared: &Arc<Shared>) {
    let Some(waste) = lock(&shared.waste).take() else {
        return;
    };
    let tasks = [
        tokio::spawn(fill_slots(Arc::clone(shared))).abort_handle(),
        tokio::spawn(fill_layers(Arc::clone(shared))).abort_handle(),
        tokio::spawn(copies::fill(Arc::clone(shared))).abort_handle(),
        tokio::spawn(clear_away(Arc::clone(shared), waste)).abort_handle(),
        tokio::spawn(keep_room(Arc::clone(shared))).abort_handle(),
    ];
    lock(&shared.tasks).extend(tasks);
}

/// Sees to it that sandboxes find room in the pool, and says it when they do not.
async fn keep_room(shared: Arc<Shared>) {
    let (mut held_up, mut failures) = (false, 0_u32);
    loop {
        let keeper = Arc::clone(&shared);
        let kept = blocking("keep room in the pool", move || keeper.pool.keep_room()).await;
        let mut pause = ROOM_LOOK;
        match kept {
            Ok(room) => {
                failures = 0;
                *lock(&shared.room) = Some(room);
                if room.left < ROOM_FULL {
                    *lock(&shared.full_at) = Some(Instant::now());
                }
                if room.left < ROOM_WATCHED {
                    pause = ROOM_WATCH;
                } else if room.is_moving {
                    pause = ROOM_LOOK_AGAIN;
                }
                if room.is_held_up != held_up {
                    held_up = room.is_held_up;
                    let (left, free) = (room.left >> 20, room.disk_free >> 20);
                    match held_up {
                        true => tracing::warn!(
                            "the disk is nearly full, {free} MiB are free: sandboxes can write \
                             {left} MiB more"
                        ),
                        false => tracing::info!("the disk has room for sandboxes again"),
                    }
                }
            }
            Err(error) => {
                failures += 1;
                if failures.is_power_of_two() {
                    let cause = chain(&error);
                    tracing::warn!(cause, failures, "cannot keep room in the pool");
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn fill_slots(shared: Arc<Shared>) {
    let target = shared.config.slot_stock;
    loop {
        let missing = wanted(&shared, &shared.slots.shelf, target).await;
        between_creates(&shared, || shared.slots.shelf.is_waited_for()).await;
        match shared.slots.make(missing).await {
            // Every slot is in use; the next one that ends is cleared away first.
            Ok(0) => tokio::time::sleep(RETRY).await,
            Ok(_) => {}
            Err(error) => {
                let cause = chain(&error);
                tracing::warn!(cause, "cannot prepare slots");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn fill_layers(shared: Arc<Shared>) {
    let target = shared.config.slot_stock;
    let mut failures = 0_u32;
    loop {
        let missing = wanted(&shared, &shared.layers, target).await;
        between_creates(&shared, || shared.layers.is_waited_for()).await;
        let filler = Arc::clone(&shared);
        let made = blocking("make writable layers", move || {
            let mut pauses = Pauses::new();
            for _ in 0..missing.min(LAYERS_BATCH) {
                pauses.between_steps(&filler, || filler.layers.is_waited_for());
                let layer = filler.pool.make(LAYER_BYTES)?;
                failpoint::hit(Point::LayerMade);
                filler.layers.put(layer);
            }
            Ok::<_, std::io::Error>(())
        });
        match made.await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                if failures.is_power_of_two() {
                    let cause = chain(&error);
                    tracing::warn!(cause, failures, "cannot prepare writable layers");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// How many are missing, once it is time to make them: when that is [`worth_it`], or when nobody
/// has made a sandbox for a while.
async fn wanted<T>(shared: &Shared, shelf: &Shelf<T>, target: usize) -> usize {
    loop {
        let missing = shelf.missing(target);
        if worth_it(missing, target) {
            return missing;
        }
        let before = shared.begun.load(Ordering::Relaxed);
        let woken = tokio::time::timeout(TOP_UP, shelf.wanted()).await;
        let quiet = woken.is_err() && shared.begun.load(Ordering::Relaxed) == before;
        if quiet && missing > 0 {
            return missing;
        }
    }
}

/// Refilling one by one would run beside every create; a quarter at a time runs beside few.
fn worth_it(missing: usize, target: usize) -> bool {
    missing > 0 && missing >= target / 4
}

/// With so many in stock nothing is [`worth_it`].
pub(super) fn enough(target: usize) -> usize {
    target - target / 4 + 1
}

/// Layers in stock to which used ones are added. More than are made ahead, because those of a burst
/// come back together; an empty one takes some 32 KiB.
fn layers_max(target: usize) -> usize {
    2 * target + 32
}

/// Waits until no create is under way, as long as nobody waits for what is to be made: a burst
/// that the stock covers has the processors to itself.
pub(super) async fn between_creates(shared: &Shared, is_waited_for: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + CALM_PATIENCE;
    while shared.creating.load(Ordering::Relaxed) > 0
        && !is_waited_for()
        && tokio::time::Instant::now() < deadline
    {
        let calm = shared.calm.notified();
        // Also looks by itself: a taker that begins to wait does not call here.
        let _ = tokio::time::timeout(CALM_POLL, calm).await;
    }
}

/// What [`between_creates`] is to a whole batch, between the steps of one, on a blocking thread.
struct Pauses {
    left: Duration,
}

impl Pauses {
    fn new() -> Self {
        Self {
            left: CALM_PATIENCE,
        }
    }

    fn between_steps(&mut self, shared: &Shared, is_waited_for: impl Fn() -> bool) {
        let runtime = tokio::runtime::Handle::current();
        while shared.creating.load(Ordering::Relaxed) > 0
            && !is_waited_for()
            && self.left > Duration::ZERO
        {
            let begun = std::time::Instant::now();
            let calm = async { tokio::time::timeout(CALM_POLL, shared.calm.notified()).await };
            let _ = runtime.block_on(calm);
            self.left = self.left.saturating_sub(begun.elapsed());
        }
    }
}

/// Lets used parts come together, unless somebody waits for what they become.
async fn gather(shared: &Shared) {
    let deadline = tokio::time::Instant::now() + GATHER;
    while !shared.slots.shelf.is_waited_for() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(GATHER_POLL).await;
    }
}

async fn clear_away(shared: Arc<Shared>, mut waste: mpsc::UnboundedReceiver<NetSlot>) {
    // An earlier process may have left something in the accounting.
    let (mut tidy, mut tidied) = (false, tokio::time::Instant::now());
    let mut patience = TIDY_AFTER;
    loop {
        let came = tokio::select! {
            came = waste.recv() => Some(came),
            () = tokio::time::sleep_until(tidied + patience), if !tidy => None,
        };
        let Some(came) = came else {
            let tidier = Arc::clone(&shared);
            let done = blocking("tidy the pool", move || tidier.pool.tidy()).await;
            tidy = done.unwrap_or_else(|error| {
                let cause = chain(&error);
                tracing::warn!(cause, "the pool's accounting is left for the next time");
                false
            });
            tidied = tokio::time::Instant::now();
            patience = (patience * 2).min(TIDY_AFTER_MAX);
            continue;
        };
        let Some(first) = came else { return };
        (tidy, patience) = (false, TIDY_AFTER);
        gather(&shared).await;
        let mut used = vec![first];
        while let Ok(more) = waste.try_recv() {
            used.push(more);
        }
        // Whoever waits for a slot may wait for one of these.
        between_creates(&shared, || shared.slots.shelf.is_waited_for()).await;
        let clearer = Arc::clone(&shared);
        let retired = blocking("retire slots", move || {
            let (busy, retired) = clearer.slots.retire(used);
            for slot in busy {
                // The kernel still counts processes that have gone: once more, later. Closed only
                // when the runtime itself is gone.
                let _ = clearer.used.send(slot);
            }
            retired
        })
        .await;
        let clearer = Arc::clone(&shared);
        let emptied = blocking("delete old layers", move || {
            let mut pauses = Pauses::new();
            let mut pause = || pauses.between_steps(&clearer, || clearer.layers.is_waited_for());
            let most = layers_max(clearer.config.slot_stock);
            let again = Again {
                bytes: LAYER_BYTES,
                wanted: &|| !clearer.layers.is_closed() && clearer.layers.len() < most,
                put: &|layer| clearer.layers.put(layer),
            };
            clearer.pool.empty_trash(&mut pause, Some(&again))
        })
        .await;
        for error in [retired.err(), emptied.err()].into_iter().flatten() {
            let cause = chain(&error);
            tracing::warn!(cause, "used parts of sandboxes are left for the next time");
        }
    }
}
