//! Leases: one holder, and an end.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{PATIENCE, name};
use crate::leases::{LEASE_LASTS_MAX, LEASE_NAME_BYTES_MAX, LEASE_NOTE_BYTES_MAX};
use crate::{CatalogError, LeaseTake, Leases};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

#[track_caller]
fn fence(taken: LeaseTake) -> u64 {
    match taken {
        LeaseTake::Taken { fence } => fence,
        LeaseTake::Held { holder, .. } => panic!("{holder} has it"),
    }
}

pub async fn a_lease_is_held_by_one(catalog: &dyn Leases) {
    let lease = name();
    let first = catalog
        .lease_take(&lease, "a", "pause", LONG)
        .await
        .unwrap();
    match catalog.lease_take(&lease, "b", "kill", LONG).await.unwrap() {
        LeaseTake::Held { holder, note, left } => {
            assert_eq!((&*holder, &*note), ("a", "pause"));
            assert!(left > LONG - PATIENCE && left <= LONG, "{left:?}");
        }
        taken @ LeaseTake::Taken { .. } => panic!("{taken:?}"),
    }
    // The same that asks again was not heard the first time.
    let again = catalog
        .lease_take(&lease, "a", "pause", LONG)
        .await
        .unwrap();
    assert_eq!(fence(again), fence(first));
    assert!(!catalog.lease_renew(&lease, "b", LONG).await.unwrap());
    assert!(!catalog.lease_give(&lease, "b").await.unwrap());
    assert!(catalog.lease_renew(&lease, "a", LONG).await.unwrap());
    assert!(catalog.lease_give(&lease, "a").await.unwrap());
    assert!(!catalog.lease_give(&lease, "a").await.unwrap());
    assert!(!catalog.lease_renew(&lease, "a", LONG).await.unwrap());
    fence(catalog.lease_take(&lease, "b", "", LONG).await.unwrap());
    assert!(catalog.lease_give(&lease, "b").await.unwrap());
}

pub async fn a_lease_that_is_not_renewed_runs_out(catalog: &dyn Leases) {
    let lease = name();
    let begun = Instant::now();
    fence(catalog.lease_take(&lease, "a", "", SHORT).await.unwrap());
    let over = timeout(PATIENCE, catalog.lease_over(&lease)).await;
    over.expect("a lease runs out").unwrap();
    assert!(
        begun.elapsed() >= SHORT - Duration::from_millis(2),
        "{:?}",
        begun.elapsed()
    );
    assert!(!catalog.lease_renew(&lease, "a", LONG).await.unwrap());
    fence(catalog.lease_take(&lease, "b", "", LONG).await.unwrap());
    assert!(!catalog.lease_give(&lease, "a").await.unwrap());
    assert!(catalog.lease_give(&lease, "b").await.unwrap());
}

pub async fn fences_rise(catalog: &dyn Leases) {
    let mut last = 0;
    for lease in [name(), name()] {
        for holder in ["a", "b", "a"] {
            let taken = catalog.lease_take(&lease, holder, "", LONG).await.unwrap();
            let fence = fence(taken);
            assert!(fence > last, "{fence} comes after {last}");
            last = fence;
            assert!(catalog.lease_give(&lease, holder).await.unwrap());
        }
    }
}

pub async fn whoever_waits_hears_of_the_end(catalog: &dyn Leases) {
    let lease = name();
    // Nobody has it.
    catalog.lease_over(&lease).await.unwrap();
    fence(catalog.lease_take(&lease, "a", "", LONG).await.unwrap());
    let waiting = async { timeout(PATIENCE, catalog.lease_over(&lease)).await };
    let giving = async {
        // It has to wait first.
        let waits = timeout(Duration::from_millis(100), catalog.lease_over(&lease));
        assert!(waits.await.is_err());
        assert!(catalog.lease_renew(&lease, "a", LONG).await.unwrap());
        assert!(catalog.lease_give(&lease, "a").await.unwrap());
    };
    let (heard, ()) = tokio::join!(waiting, giving);
    heard.expect("whoever waits hears of it").unwrap();
}

pub async fn a_lease_past_its_limits_is_refused(catalog: &dyn Leases) {
    let long = "n".repeat(LEASE_NAME_BYTES_MAX + 1);
    let note = "n".repeat(LEASE_NOTE_BYTES_MAX + 1);
    let too_long = LEASE_LASTS_MAX + Duration::from_millis(1);
    for (name, holder, note, lasts) in [
        ("", "a", "", LONG),
        (&*long, "a", "", LONG),
        ("n", "", "", LONG),
        ("n", &*long, "", LONG),
        ("n", "a", &*note, LONG),
        ("n", "a", "", Duration::ZERO),
        ("n", "a", "", too_long),
    ] {
        let taken = catalog.lease_take(name, holder, note, lasts).await;
        assert!(
            matches!(taken, Err(CatalogError::Limit { .. })),
            "{taken:?}"
        );
    }
}

pub async fn of_many_that_ask_at_once_one_has_it(catalog: &dyn Leases) {
    let lease = name();
    let ask = |holder: &'static str| catalog.lease_take(&lease, holder, "", LONG);
    let (a, b, c, d) = tokio::join!(ask("a"), ask("b"), ask("c"), ask("d"));
    let taken = [a, b, c, d].map(|taken| matches!(taken.unwrap(), LeaseTake::Taken { .. }));
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
}
