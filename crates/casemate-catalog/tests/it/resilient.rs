//! Both adapters as one.

use std::time::Duration;

use casemate_catalog::testing::Redis;
use casemate_catalog::{
    Catalog, Events, Health, LeaseTake, Leases, Notice, Rate, RateTake, Rates, RedisCatalog,
    ResilientCatalog,
};
use casemate_types::SandboxId;
use tokio::time::{Instant, sleep, timeout};

use crate::loss::{PATIENCE, comes_back, next, own, quick, route};

async fn open() -> Option<Box<ResilientCatalog>> {
    let redis = crate::redis::open().await?;
    Some(Box::new(ResilientCatalog::new(*redis, 1000)))
}

casemate_catalog::catalog_conformance!(open);

/// A Redis of the test's own, one server over it, and how another sees it.
fn world() -> Option<(Redis, ResilientCatalog, RedisCatalog)> {
    let redis = own(&[])?;
    let settings = quick(redis.settings());
    let here = ResilientCatalog::new(RedisCatalog::open(settings.clone()).unwrap(), 100);
    let elsewhere = RedisCatalog::open(settings).unwrap();
    Some((redis, here, elsewhere))
}

#[tokio::test]
async fn routes_outlive_redis_and_are_told_to_it_later() {
    let Some((mut redis, here, elsewhere)) = world() else {
        return;
    };
    let [put, looked_up, going, gone, new, unknown] = [(); 6].map(|()| SandboxId::random());
    here.route_put(&put, route("n", 1)).await.unwrap();
    here.route_put(&going, route("n", 1)).await.unwrap();
    here.route_put(&gone, route("n", 1)).await.unwrap();
    here.route_remove(&gone, "n", 1).await.unwrap();
    elsewhere
        .route_put(&looked_up, route("m", 1))
        .await
        .unwrap();
    assert!(here.route_by_id(&looked_up).await.unwrap().is_some());
    elsewhere.route_put(&unknown, route("m", 1)).await.unwrap();

    redis.kill();
    assert!(here.route_put(&new, route("n", 7)).await.unwrap());
    assert!(here.route_put(&put, route("m", 2)).await.unwrap());
    assert!(!here.route_put(&put, route("n", 1)).await.unwrap());
    assert!(here.route_remove(&going, "n", 1).await.unwrap());
    assert_eq!(here.route_by_id(&new).await.unwrap(), Some(route("n", 7)));
    assert_eq!(here.route_by_id(&put).await.unwrap(), Some(route("m", 2)));
    assert_eq!(
        here.route_by_id(&looked_up).await.unwrap(),
        Some(route("m", 1))
    );
    assert_eq!(here.route_by_id(&going).await.unwrap(), None);
    assert_eq!(here.route_by_id(&gone).await.unwrap(), None);
    // It is not said to be absent: nobody here knows.
    assert!(here.route_by_id(&unknown).await.unwrap_err().is_retryable());

    redis.restart();
    comes_back(&elsewhere).await;
    // Somebody else speaks first: the newer word counts, wherever it was said.
    elsewhere.route_put(&new, route("x", 8)).await.unwrap();
    elsewhere.route_put(&put, route("x", 1)).await.unwrap();
    let begun = Instant::now();
    while elsewhere.route_by_id(&put).await.unwrap() != Some(route("m", 2)) {
        assert!(
            begun.elapsed() < PATIENCE,
            "Redis is told of what it missed"
        );
        sleep(Duration::from_millis(10)).await;
    }
    comes_back(&here).await;
    for catalog in [&here as &dyn Catalog, &elsewhere] {
        assert_eq!(
            catalog.route_by_id(&new).await.unwrap(),
            Some(route("x", 8))
        );
        assert_eq!(catalog.route_by_id(&going).await.unwrap(), None);
    }
}

#[tokio::test]
async fn whoever_fills_is_told_of_what_was_missed() {
    let Some((redis, here, _)) = world() else {
        return;
    };
    let epoch = here.epoch().await.unwrap();
    assert_eq!(here.epoch().await.unwrap(), epoch);
    redis.signal("STOP");
    here.routes_replace("n", &[(SandboxId::random(), route("n", 1))], &[])
        .await
        .unwrap();
    assert!(here.epoch().await.unwrap_err().is_retryable());
    redis.signal("CONT");
    comes_back(&here).await;
    let after = here.epoch().await.unwrap();
    assert_ne!(after, epoch);
    // More than is remembered: the bound of this test's catalog is a hundred.
    redis.signal("STOP");
    for _ in 0..101 {
        here.route_put(&SandboxId::random(), route("n", 1))
            .await
            .unwrap();
    }
    redis.signal("CONT");
    comes_back(&here).await;
    assert_ne!(here.epoch().await.unwrap(), after);
}

#[tokio::test]
async fn one_that_lost_its_data_is_told_again() {
    let Some(redis) = own(&[]) else { return };
    let settings = quick(redis.settings());
    let here = ResilientCatalog::filling(RedisCatalog::open(settings.clone()).unwrap(), 100);
    let elsewhere = RedisCatalog::open(settings).unwrap();
    let [stays, ended] = [(); 2].map(|()| SandboxId::random());
    for id in [&stays, &ended] {
        here.route_put(id, route("n", 3)).await.unwrap();
    }
    here.route_remove(&ended, "n", 3).await.unwrap();
    let begun = Instant::now();
    let before = here.epoch().await.unwrap();
    loop {
        assert!(begun.elapsed() < PATIENCE, "Redis is told again");
        // Once more where nobody had looked yet: then nothing is known to be lost.
        assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
        assert_ne!(here.epoch().await.unwrap(), before);
        let told = async {
            while elsewhere.route_by_id(&stays).await.unwrap() != Some(route("n", 3)) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(Duration::from_secs(4), told).await.is_ok() {
            break;
        }
    }
    assert_eq!(elsewhere.route_by_id(&ended).await.unwrap(), None);
}

#[tokio::test]
async fn leases_are_of_this_process_while_redis_is_away() {
    let Some((mut redis, here, elsewhere)) = world() else {
        return;
    };
    let long = Duration::from_secs(60);
    let take = |holder| here.lease_take("l", holder, "kill", long);
    assert!(matches!(take("a").await.unwrap(), LeaseTake::Taken { .. }));
    redis.kill();
    // What was taken before is held on.
    assert!(matches!(take("b").await.unwrap(), LeaseTake::Held { .. }));
    assert!(here.lease_renew("l", "a", long).await.unwrap());
    let waits = timeout(Duration::from_millis(50), here.lease_over("l"));
    assert!(waits.await.is_err());
    assert!(here.lease_give("l", "a").await.unwrap());
    timeout(PATIENCE, here.lease_over("l"))
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(take("b").await.unwrap(), LeaseTake::Taken { .. }));

    redis.restart();
    comes_back(&here).await;
    comes_back(&elsewhere).await;
    // With the next renewal others see it.
    assert!(here.lease_renew("l", "b", long).await.unwrap());
    let held = elsewhere.lease_take("l", "c", "", long).await.unwrap();
    assert!(
        matches!(&held, LeaseTake::Held { holder, note, .. } if holder == "b" && note == "kill")
    );
    assert!(here.lease_give("l", "b").await.unwrap());
    // One that somebody else took in the meantime is not renewed.
    assert!(matches!(take("d").await.unwrap(), LeaseTake::Taken { .. }));
    assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
    elsewhere.lease_take("l", "e", "", long).await.unwrap();
    assert!(!here.lease_renew("l", "d", long).await.unwrap());
    assert!(matches!(take("d").await.unwrap(), LeaseTake::Held { holder, .. } if holder == "e"));
    // And what is refused elsewhere is not held here.
    elsewhere.lease_give("l", "e").await.unwrap();
    assert!(matches!(take("f").await.unwrap(), LeaseTake::Taken { .. }));
}

#[tokio::test]
async fn rates_pass_and_events_are_lost_while_redis_is_away() {
    let Some((mut redis, here, _)) = world() else {
        return;
    };
    let rate = Rate {
        per_second: 0.01,
        burst: 1,
    };
    let mut subscription = here.subscribe(&["t"]).await.unwrap();
    assert_eq!(next(&mut subscription).await, Notice::Gap);
    assert!(matches!(
        here.rate_take("r", rate).await.unwrap(),
        RateTake::Taken { .. }
    ));
    assert!(matches!(
        here.rate_take("r", rate).await.unwrap(),
        RateTake::Refused { .. }
    ));
    redis.kill();
    assert_eq!(
        here.rate_take("r", rate).await.unwrap(),
        RateTake::Uncounted
    );
    here.publish("t", b"lost").await.unwrap();
    assert!(here.ping().await.unwrap_err().is_retryable());
    redis.restart();
    assert_eq!(next(&mut subscription).await, Notice::Gap);
    comes_back(&here).await;
    here.publish("t", b"heard").await.unwrap();
    let Notice::Event { payload, .. } = next(&mut subscription).await else {
        panic!("nothing was missed");
    };
    assert_eq!(payload, b"heard");
    assert!(matches!(
        here.rate_take("r", rate).await.unwrap(),
        RateTake::Taken { .. }
    ));
}
