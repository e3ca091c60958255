//! Tasks beside the sandboxes: filling the stock, clearing away what was used.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use casemate_net::NetSlot;
use casemate_types::Resources;
use tokio::sync::mpsc;

use super::{Shared, blocking, lock};

/// What layers in stock may hold: a sandbox's default. Another size costs a create one call.
pub(super) const LAYER_BYTES: u64 = (Resources::BASE.disk_mib as u64) << 20;
/// How long a failed filling waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Used networks are gathered for so long: the kernel takes away many as fast as one.
const GATHER: Duration = Duration::from_millis(50);
/// The longest that filling waits for creates to pause, and how often it looks.
const CALM_PATIENCE: Duration = Duration::from_secs(1);
const CALM_POLL: Duration = Duration::from_millis(10);
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
        tokio::spawn(clear_away(Arc::clone(shared), waste)).abort_handle(),
    ];
    lock(&shared.tasks).extend(tasks);
}

async fn fill_slots(shared: Arc<Shared>) {
    let target = shared.config.slot_stock;
    loop {
        let missing = shared.slots.shelf.missing(target);
        if !worth_it(missing, target) {
            shared.slots.shelf.wanted().await;
            continue;
        }
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
    loop {
        let missing = shared.layers.missing(target);
        if !worth_it(missing, target) {
            shared.layers.wanted().await;
            continue;
        }
        between_creates(&shared, || shared.layers.is_waited_for()).await;
        let filler = Arc::clone(&shared);
        let made = blocking("make writable layers", move || {
            for _ in 0..missing.min(LAYERS_BATCH) {
                filler.layers.put(filler.pool.make(LAYER_BYTES)?);
            }
            Ok::<_, std::io::Error>(())
        });
        if let Err(error) = made.await {
            let cause = chain(&error);
            tracing::warn!(cause, "cannot prepare writable layers");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Refilling one by one would run beside every create; a quarter at a time runs beside few.
fn worth_it(missing: usize, target: usize) -> bool {
    missing > 0 && missing >= target / 4
}

/// Waits until no create is under way, as long as nobody waits for what is to be made: a burst
/// that the stock covers has the processors to itself.
async fn between_creates(shared: &Shared, is_waited_for: impl Fn() -> bool) {
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

async fn clear_away(shared: Arc<Shared>, mut waste: mpsc::UnboundedReceiver<NetSlot>) {
    while let Some(first) = waste.recv().await {
        tokio::time::sleep(GATHER).await;
        let mut used = vec![first];
        while let Ok(more) = waste.try_recv() {
            used.push(more);
        }
        let clearer = Arc::clone(&shared);
        let retired = blocking("retire slots", move || clearer.slots.retire(used)).await;
        let clearer = Arc::clone(&shared);
        let emptied = blocking("delete old layers", move || clearer.pool.empty_trash()).await;
        for error in [retired.err(), emptied.err()].into_iter().flatten() {
            let cause = chain(&error);
            tracing::warn!(cause, "used parts of sandboxes are left for the next time");
        }
    }
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
