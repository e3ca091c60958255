//! How often a team may ask.

use std::sync::Arc;

use async_trait::async_trait;
use casemate_api::{ApiState, RateLimits, router};
use casemate_catalog::{CatalogError, MemoryCatalog, Rate, RateTake, Rates};
use casemate_store::Standing;

use crate::world::{ACCESS_TOKEN, Answer, SCRAPE, World, guarded};

/// One in a thousand seconds: none comes back while a test runs.
fn once_in_a_while(burst: u32) -> Option<Rate> {
    Some(Rate {
        per_second: 0.001,
        burst,
    })
}

async fn world(limits: RateLimits, rates: impl Rates + 'static) -> World {
    let mut world = World::new().await;
    let state = ApiState::new(Arc::clone(&world.control), guarded(false));
    world.router = router(state.with_rate_limits(limits, Arc::new(rates)));
    world
}

#[track_caller]
fn told(answer: &Answer, limit: &str, remaining: &str, reset: std::ops::RangeInclusive<u64>) {
    assert_eq!(answer.header("ratelimit-limit"), Some(limit));
    assert_eq!(answer.header("ratelimit-remaining"), Some(remaining));
    let told: u64 = answer.header("ratelimit-reset").unwrap().parse().unwrap();
    assert!(reset.contains(&told), "{told}");
}

#[tokio::test]
async fn a_team_is_refused_beyond_its_burst() {
    let limits = RateLimits {
        reads: once_in_a_while(2),
        ..RateLimits::default()
    };
    let world = world(limits, MemoryCatalog::new()).await;
    let list = || world.api("GET", "/v2/sandboxes").send();
    let first = list().await;
    assert_eq!(first.status, 200);
    told(&first, "2", "1", 990..=1000);
    // Errors count, and say so as well.
    let second = world.api("GET", "/sandboxes/inothere").send().await;
    assert_eq!(second.status, 404);
    told(&second, "2", "0", 1990..=2000);
    let third = list().await;
    assert_eq!(third.status, 429);
    assert_eq!(
        third.text,
        r#"{"code":429,"message":"Rate limit exceeded"}"#
    );
    told(&third, "2", "0", 1990..=2000);
    let retry_after: u64 = third.header("retry-after").unwrap().parse().unwrap();
    assert!((990..=1000).contains(&retry_after), "{retry_after}");
    assert_eq!(third.header("should-retry"), None);
    // Another team has its own, and so have other groups and the administrator.
    let (_, key) = world.other_team(Standing::Good).await;
    let other = world.call("GET", "/v2/sandboxes").header("x-api-key", &key);
    told(&other.send().await, "2", "1", 990..=1000);
    let created = world.try_create("").await;
    assert_eq!(created.status, 201);
    assert_eq!(created.header("ratelimit-limit"), None);
    let nodes = world.admin("GET", "/nodes").send().await;
    assert_eq!(
        (nodes.status.as_u16(), nodes.header("ratelimit-limit")),
        (200, None)
    );
}

#[tokio::test]
async fn groups_of_operations_are_apart() {
    let limits = RateLimits {
        creates: once_in_a_while(1),
        changes: once_in_a_while(2),
        reads: once_in_a_while(3),
    };
    let world = world(limits, MemoryCatalog::new()).await;
    let sandbox = world.create("").await;
    assert_eq!(world.try_create("").await.error(429), "Rate limit exceeded");
    // Nothing was made by the one that was refused.
    assert_eq!(world.listed().await.len(), 1);
    let fork = world.api("POST", &format!("/sandboxes/{sandbox}/fork"));
    fork.json("{}").send().await.error(429);
    let kill = || world.api("DELETE", &format!("/sandboxes/{sandbox}")).send();
    let killed = kill().await;
    assert_eq!(killed.status, 204);
    told(&killed, "2", "1", 990..=1000);
    told(&kill().await, "2", "0", 1990..=2000);
    kill().await.error(429);
    told(
        &world.api("GET", "/v2/sandboxes").send().await,
        "3",
        "1",
        1990..=2000,
    );
    // A user who acts for no team has a bucket of its own.
    let teams = || {
        let bearer = format!("Bearer {ACCESS_TOKEN}");
        world
            .call("GET", "/teams")
            .header("authorization", &bearer)
            .send()
    };
    told(&teams().await, "3", "2", 990..=1000);
}

#[tokio::test]
async fn who_is_nobody_is_not_limited_here() {
    let limits = RateLimits {
        creates: once_in_a_while(1),
        changes: once_in_a_while(1),
        reads: once_in_a_while(1),
    };
    let world = world(limits, MemoryCatalog::new()).await;
    for _ in 0..3 {
        let health = world.call("GET", "/health").send().await;
        assert_eq!(
            (health.status.as_u16(), health.header("ratelimit-limit")),
            (200, None)
        );
        let refused = world.call("GET", "/v2/sandboxes").send().await;
        assert_eq!(
            (refused.status.as_u16(), refused.header("ratelimit-limit")),
            (401, None)
        );
    }
    told(
        &world.api("GET", "/v2/sandboxes").send().await,
        "1",
        "0",
        990..=1000,
    );
}

#[tokio::test]
async fn what_comes_back_is_given_again() {
    let limits = RateLimits {
        reads: Some(Rate {
            per_second: 1000.0,
            burst: 1,
        }),
        ..RateLimits::default()
    };
    let world = world(limits, MemoryCatalog::new()).await;
    let mut refused = 0;
    for _ in 0..50 {
        let answer = world.api("GET", "/v2/sandboxes").send().await;
        if answer.status == 429 {
            refused += 1;
            // Never less than a second is asked for.
            assert_eq!(answer.header("retry-after"), Some("1"));
        } else {
            told(&answer, "1", "0", 1..=1);
        }
    }
    assert!(refused < 50, "a thousand a second come back");
}

/// Nobody counts: it fails, or says so.
struct Away(bool);

#[async_trait]
impl Rates for Away {
    async fn rate_take(&self, _: &str, _: Rate) -> Result<RateTake, CatalogError> {
        if self.0 {
            return Err(CatalogError::Unavailable("away".into()));
        }
        Ok(RateTake::Uncounted)
    }
}

#[tokio::test]
async fn requests_pass_where_nobody_counts() {
    for fails in [true, false] {
        let limits = RateLimits {
            reads: once_in_a_while(1),
            ..RateLimits::default()
        };
        let world = world(limits, Away(fails)).await;
        for _ in 0..3 {
            let answer = world.api("GET", "/v2/sandboxes").send().await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("ratelimit-limit"), None);
        }
        let bearer = format!("Bearer {SCRAPE}");
        let metrics = world
            .call("GET", "/metrics")
            .header("authorization", &bearer);
        let metrics = metrics.send().await.text;
        assert!(
            metrics.contains("casemate_rate_limit_failures_total 3"),
            "{metrics}"
        );
    }
}
