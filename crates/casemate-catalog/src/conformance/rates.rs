//! Rates: no more than there is.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::name;
use crate::rates::{RATE_BURST_MAX, RATE_KEY_BYTES_MAX};
use crate::{CatalogError, Rate, RateTake, Rates};

/// One in a hundred seconds: none comes back while a test runs.
const SLOW: f64 = 0.01;

pub async fn a_bucket_gives_its_burst_and_then_its_rate(catalog: &dyn Rates) {
    let key = name();
    let rate = Rate {
        per_second: 10.0,
        burst: 3,
    };
    let begun = Instant::now();
    let mut taken = 0;
    let retry_after = loop {
        match catalog.rate_take(&key, rate).await.unwrap() {
            RateTake::Taken {
                limit,
                remaining,
                reset,
            } => {
                assert_eq!(limit, 3);
                assert!(remaining < 3);
                assert!(reset <= Duration::from_millis(301), "{reset:?}");
                taken += 1;
            }
            RateTake::Refused {
                limit,
                retry_after,
                reset,
            } => {
                assert_eq!(limit, 3);
                assert!(retry_after <= Duration::from_millis(101), "{retry_after:?}");
                assert!(
                    reset <= Duration::from_millis(301) && reset >= retry_after,
                    "{reset:?}"
                );
                break retry_after;
            }
            RateTake::Uncounted => panic!("it counts"),
        }
    };
    assert!(taken >= 3);
    assert!(f64::from(taken) <= 3.0 + begun.elapsed().as_secs_f64() * 10.0 + 1.0);
    // What it was told to wait is enough; a timer may be early by its own unit.
    sleep(retry_after + Duration::from_millis(2)).await;
    let next = catalog.rate_take(&key, rate).await.unwrap();
    assert!(matches!(next, RateTake::Taken { .. }), "{next:?}");
}

pub async fn buckets_are_apart(catalog: &dyn Rates) {
    let (one, other) = (name(), name());
    let rate = Rate {
        per_second: SLOW,
        burst: 1,
    };
    for key in [&one, &other] {
        let first = catalog.rate_take(key, rate).await.unwrap();
        assert!(
            matches!(first, RateTake::Taken { remaining: 0, .. }),
            "{first:?}"
        );
        let second = catalog.rate_take(key, rate).await.unwrap();
        let RateTake::Refused { retry_after, .. } = second else {
            panic!("{second:?}");
        };
        assert!(retry_after > Duration::from_secs(70), "{retry_after:?}");
    }
    // A larger bucket counts at once.
    let larger = Rate { burst: 3, ..rate };
    let third = catalog.rate_take(&one, larger).await.unwrap();
    assert!(
        matches!(third, RateTake::Taken { limit: 3, .. }),
        "{third:?}"
    );
}

pub async fn many_at_once_take_no_more_than_there_is(catalog: &dyn Rates) {
    let key = name();
    let rate = Rate {
        per_second: SLOW,
        burst: 25,
    };
    let mut taken = 0;
    for _ in 0..10 {
        let ask = || catalog.rate_take(&key, rate);
        let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
        for took in [a, b, c, d] {
            if matches!(took.unwrap(), RateTake::Taken { .. }) {
                taken += 1;
            }
        }
    }
    assert_eq!(taken, 25);
}

pub async fn a_rate_past_its_limits_is_refused(catalog: &dyn Rates) {
    let long = "k".repeat(RATE_KEY_BYTES_MAX + 1);
    for (key, per_second, burst) in [
        ("", 1.0, 1),
        (&*long, 1.0, 1),
        ("k", 0.0, 1),
        ("k", -1.0, 1),
        ("k", f64::NAN, 1),
        ("k", f64::INFINITY, 1),
        ("k", 1.0, 0),
        ("k", 1.0, RATE_BURST_MAX + 1),
    ] {
        let taken = catalog.rate_take(key, Rate { per_second, burst }).await;
        assert!(
            matches!(taken, Err(CatalogError::Limit { .. })),
            "{taken:?}"
        );
    }
}
