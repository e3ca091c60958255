//! What happens to calls, and to what was told, when something happens to Redis.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use casemate_catalog::testing::{Redis, RedisOptions};
use casemate_catalog::{
    Catalog, CatalogError, Events, Health, LeaseTake, Leases, Notice, Password, Rate, Rates,
    RedisCatalog, RedisSettings, Route, Subscription, conformance,
};
use casemate_types::{Ingress, SandboxId};
use tokio::time::{Instant, sleep, timeout};

use crate::proxy::Proxy;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const CALL: Duration = Duration::from_millis(800);
/// Of what does not wait for Redis at all, on a machine that is busy.
const AT_ONCE: Duration = Duration::from_millis(250);

pub(crate) fn own(args: &[&str]) -> Option<Redis> {
    Redis::is_wanted().then(|| {
        Redis::start(RedisOptions {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..RedisOptions::default()
        })
    })
}

/// Short limits, so that tests need not wait long for them.
pub(crate) fn quick(mut settings: RedisSettings) -> RedisSettings {
    settings.call_timeout = CALL;
    settings.connection_timeout = CALL;
    settings
}

pub(crate) fn route(node: &str, generation: u64) -> Route {
    Route {
        node: node.into(),
        asleep: false,
        ingress: Ingress::default(),
        generation,
        traffic_token: None,
    }
}

/// Until it answers again, by itself.
pub(crate) async fn comes_back(catalog: &dyn Health) {
    let begun = Instant::now();
    while let Err(error) = catalog.ping().await {
        assert!(error.is_retryable());
        assert!(
            begun.elapsed() < PATIENCE,
            "it does not come back: {error:?}"
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// Until it is noticed; whatever is asked until then fails within the limit of a call.
async fn goes_away(catalog: &dyn Health) {
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        let answer = catalog.ping().await;
        assert!(asked.elapsed() < CALL + AT_ONCE, "{:?}", asked.elapsed());
        if let Err(error) = answer {
            assert!(error.is_retryable());
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody notices");
    }
}

async fn fails_at_once(catalog: &dyn Catalog) {
    for _ in 0..20 {
        let begun = Instant::now();
        let error = catalog.route_by_id(&SandboxId::random()).await.unwrap_err();
        assert!(matches!(error, CatalogError::Unavailable(_)));
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    }
}

pub(crate) async fn next(subscription: &mut Subscription) -> Notice {
    let next = timeout(PATIENCE, subscription.next()).await;
    next.expect("a notice comes")
}

#[tokio::test]
async fn one_that_stands_still_holds_up_one_round_of_calls() {
    let Some(redis) = own(&[]) else { return };
    let catalog = RedisCatalog::open(quick(redis.settings())).unwrap();
    let id = SandboxId::random();
    catalog.route_put(&id, route("n", 1)).await.unwrap();
    redis.signal("STOP");
    let ask = || async {
        let begun = Instant::now();
        let error = catalog.route_by_id(&id).await.unwrap_err();
        assert!(error.is_retryable());
        assert!(begun.elapsed() < CALL + AT_ONCE, "{:?}", begun.elapsed());
    };
    tokio::join!(ask(), ask(), ask());
    fails_at_once(&catalog).await;
    redis.signal("CONT");
    comes_back(&catalog).await;
    assert_eq!(catalog.route_by_id(&id).await.unwrap(), Some(route("n", 1)));
}

#[tokio::test]
async fn one_that_is_not_there_yet_is_found_when_it_comes() {
    let Some(mut redis) = own(&[]) else { return };
    redis.kill();
    let catalog = RedisCatalog::open(quick(redis.settings())).unwrap();
    let mut subscription = catalog.subscribe(&["t"]).await.unwrap();
    goes_away(&catalog).await;
    fails_at_once(&catalog).await;
    redis.restart();
    comes_back(&catalog).await;
    assert_eq!(next(&mut subscription).await, Notice::Gap);
    catalog.publish("t", b"1").await.unwrap();
    assert!(matches!(
        next(&mut subscription).await,
        Notice::Event { .. }
    ));
}

#[tokio::test]
async fn one_that_crashed_comes_back_with_what_it_had_kept() {
    for durable in [true, false] {
        if !Redis::is_wanted() {
            return;
        }
        let mut redis = Redis::start(RedisOptions {
            durable,
            ..RedisOptions::default()
        });
        let catalog = RedisCatalog::open(quick(redis.settings())).unwrap();
        let mut subscription = catalog.subscribe(&["t"]).await.unwrap();
        assert_eq!(next(&mut subscription).await, Notice::Gap);
        let (id, epoch) = (SandboxId::random(), catalog.epoch().await.unwrap());
        catalog.route_put(&id, route("n", 1)).await.unwrap();
        let begun = Instant::now();
        redis.kill();
        goes_away(&catalog).await;
        assert!(begun.elapsed() < CALL * 2, "{:?}", begun.elapsed());
        fails_at_once(&catalog).await;
        redis.restart();
        comes_back(&catalog).await;
        let expected = durable.then(|| route("n", 1));
        assert_eq!(catalog.route_by_id(&id).await.unwrap(), expected);
        assert_eq!(catalog.epoch().await.unwrap() == epoch, durable);
        assert_eq!(next(&mut subscription).await, Notice::Gap);
        catalog.publish("t", b"1").await.unwrap();
        assert!(matches!(
            next(&mut subscription).await,
            Notice::Event { .. }
        ));
    }
}

#[tokio::test]
async fn one_that_was_emptied_says_so() {
    let Some(redis) = own(&[]) else { return };
    let catalog = RedisCatalog::open(redis.settings()).unwrap();
    let (id, epoch) = (SandboxId::random(), catalog.epoch().await.unwrap());
    let long = Duration::from_secs(60);
    let taken = catalog.lease_take("l", "a", "", long).await.unwrap();
    let LeaseTake::Taken { fence: before } = taken else {
        panic!("nobody has it");
    };
    catalog.route_put(&id, route("n", 1)).await.unwrap();
    assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
    assert_eq!(redis.cli(&["SCRIPT", "FLUSH"]), "OK");
    assert_eq!(catalog.route_by_id(&id).await.unwrap(), None);
    let after = catalog.epoch().await.unwrap();
    assert_ne!(after, epoch);
    assert_eq!(catalog.epoch().await.unwrap(), after);
    assert!(!catalog.lease_renew("l", "a", long).await.unwrap());
    let taken = catalog.lease_take("l", "b", "", long).await.unwrap();
    assert!(
        matches!(taken, LeaseTake::Taken { fence } if fence > before),
        "{taken:?}"
    );
}

#[tokio::test]
async fn a_connection_that_is_cut_costs_no_call() {
    let Some(redis) = own(&[]) else { return };
    let catalog = RedisCatalog::open(redis.settings()).unwrap();
    let mut subscription = catalog.subscribe(&["t"]).await.unwrap();
    assert_eq!(next(&mut subscription).await, Notice::Gap);
    for generation in 0..20 {
        let id = SandboxId::random();
        let killed = redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let more = redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(
            killed != "0" || more != "0" || generation > 0,
            "{killed} {more}"
        );
        assert!(
            catalog
                .route_put(&id, route("n", generation))
                .await
                .unwrap()
        );
        assert!(catalog.route_by_id(&id).await.unwrap().is_some());
    }
    assert_eq!(next(&mut subscription).await, Notice::Gap);
}

#[tokio::test]
async fn a_full_one_refuses_what_is_new_and_nothing_else() {
    let Some(redis) = own(&["--maxmemory-policy", "noeviction"]) else {
        return;
    };
    let catalog = RedisCatalog::open(redis.settings()).unwrap();
    let [known, going, new] = [(); 3].map(|()| SandboxId::random());
    let epoch = catalog.epoch().await.unwrap();
    catalog.route_put(&known, route("n", 1)).await.unwrap();
    catalog.route_put(&going, route("n", 1)).await.unwrap();
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", "1"]), "OK");

    let unavailable = |error: CatalogError| assert!(error.is_retryable(), "{error:?}");
    unavailable(catalog.route_put(&new, route("n", 1)).await.unwrap_err());
    unavailable(catalog.lease_take("l", "a", "", CALL).await.unwrap_err());
    let rate = Rate {
        per_second: 1.0,
        burst: 1,
    };
    unavailable(catalog.rate_take("r", rate).await.unwrap_err());
    // What is there is answered, replaced and removed.
    assert!(catalog.route_put(&known, route("m", 2)).await.unwrap());
    assert_eq!(
        catalog.route_by_id(&known).await.unwrap(),
        Some(route("m", 2))
    );
    assert!(catalog.route_remove(&going, "n", 1).await.unwrap());
    assert_eq!(catalog.route_by_id(&going).await.unwrap(), None);
    assert_eq!(catalog.epoch().await.unwrap(), epoch);

    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert!(catalog.route_put(&new, route("n", 1)).await.unwrap());
}

#[tokio::test]
async fn a_replica_is_left_when_the_address_leads_to_a_master_again() {
    let Some(redis) = own(&[]) else { return };
    let catalog = RedisCatalog::open(redis.settings()).unwrap();
    let id = SandboxId::random();
    catalog.route_put(&id, route("n", 1)).await.unwrap();
    // There is no such master: it keeps what it has and takes nothing.
    assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    let error = catalog.route_put(&id, route("n", 2)).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    comes_back(&catalog).await;
    assert_eq!(catalog.route_by_id(&id).await.unwrap(), Some(route("n", 1)));
    assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    comes_back(&catalog).await;
    assert!(catalog.route_put(&id, route("n", 2)).await.unwrap());
}

#[tokio::test]
async fn calls_do_not_wait_for_each_other() {
    if !Redis::is_wanted() {
        return;
    }
    let redis = Redis::shared();
    let proxy = Proxy::to(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let settings = RedisSettings::new(&url, Password::new(redis.password())).unwrap();
    let catalog = RedisCatalog::open(quick(settings)).unwrap();
    catalog.ping().await.unwrap();
    let id = SandboxId::random();
    catalog.route_put(&id, route("n", 1)).await.unwrap();

    proxy.delay(Duration::from_millis(100));
    let begun = Instant::now();
    let looks = (0..200)
        .map(|_| catalog.route_by_id(&id))
        .collect::<Vec<_>>();
    let mut set = looks.into_iter().map(Box::pin).collect::<Vec<_>>();
    let all = std::future::poll_fn(|context| {
        set.retain_mut(|look| match look.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                assert!(answer.unwrap().is_some());
                false
            }
            std::task::Poll::Pending => true,
        });
        if set.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    all.await;
    assert!(begun.elapsed() < CALL, "{:?}", begun.elapsed());

    proxy.delay(CALL * 3);
    goes_away(&catalog).await;
    fails_at_once(&catalog).await;
    proxy.delay(Duration::ZERO);
    comes_back(&catalog).await;
    assert!(catalog.route_by_id(&id).await.unwrap().is_some());
}

#[tokio::test]
async fn no_more_calls_wait_than_may() {
    let Some(redis) = own(&[]) else { return };
    let mut settings = quick(redis.settings());
    settings.calls_max = 2;
    let catalog = RedisCatalog::open(settings).unwrap();
    catalog.ping().await.unwrap();
    redis.signal("STOP");
    let busy = async {
        let begun = Instant::now();
        let error = catalog.ping().await.unwrap_err();
        assert!(error.is_retryable());
        begun.elapsed() < AT_ONCE
    };
    let (first, second, third) = tokio::join!(catalog.ping(), catalog.ping(), busy);
    assert!(first.is_err() && second.is_err());
    assert!(third, "the third does not wait");
    redis.signal("CONT");
    comes_back(&catalog).await;
}

#[tokio::test]
async fn what_somebody_else_wrote_is_said_to_be_damaged() {
    let Some(redis) = own(&[]) else { return };
    let mut settings = redis.settings();
    settings.prefix = "p".into();
    let catalog = RedisCatalog::open(settings).unwrap();
    let id = SandboxId::random();
    let key = format!("{{p}}:route:{id}");
    redis.cli(&[
        "HSET",
        &key,
        "generation",
        "00000000000000000001",
        "route",
        "what?",
    ]);
    let error = catalog.route_by_id(&id).await.unwrap_err();
    assert!(matches!(error, CatalogError::Damaged { .. }), "{error:?}");
    // Whoever knows better writes it again.
    assert!(catalog.route_put(&id, route("n", 1)).await.unwrap());
    assert_eq!(catalog.route_by_id(&id).await.unwrap(), Some(route("n", 1)));
}

#[tokio::test]
async fn installations_share_a_redis() {
    if !Redis::is_wanted() {
        return;
    }
    let [one, other] = [(); 2].map(|()| RedisCatalog::open(Redis::shared().settings()).unwrap());
    let id = SandboxId::random();
    one.route_put(&id, route("n", 1)).await.unwrap();
    assert_eq!(other.route_by_id(&id).await.unwrap(), None);
    assert_ne!(one.epoch().await.unwrap(), other.epoch().await.unwrap());
    let mut of_other = other.subscribe(&["t"]).await.unwrap();
    assert_eq!(next(&mut of_other).await, Notice::Gap);
    one.publish("t", b"one").await.unwrap();
    other.publish("t", b"other").await.unwrap();
    let Notice::Event { payload, .. } = next(&mut of_other).await else {
        panic!("nothing was missed");
    };
    assert_eq!(payload, b"other");
}

/// Servers with a connection of their own each; one after the other is asked.
struct Several(Vec<RedisCatalog>, AtomicUsize);

impl Several {
    fn one(&self) -> &RedisCatalog {
        &self.0[self.1.fetch_add(1, Ordering::Relaxed) % self.0.len()]
    }
}

#[async_trait]
impl Catalog for Several {
    async fn route_put(&self, sandbox: &SandboxId, route: Route) -> Result<bool, CatalogError> {
        self.one().route_put(sandbox, route).await
    }

    async fn route_by_id(&self, sandbox: &SandboxId) -> Result<Option<Route>, CatalogError> {
        self.one().route_by_id(sandbox).await
    }

    async fn route_remove(
        &self,
        sandbox: &SandboxId,
        node: &str,
        generation: u64,
    ) -> Result<bool, CatalogError> {
        self.one().route_remove(sandbox, node, generation).await
    }

    async fn routes_replace(
        &self,
        node: &str,
        routes: &[(SandboxId, Route)],
        unsure: &[SandboxId],
    ) -> Result<(), CatalogError> {
        self.one().routes_replace(node, routes, unsure).await
    }
}

#[tokio::test]
async fn several_servers_agree() {
    if !Redis::is_wanted() {
        return;
    }
    let settings = Redis::shared().settings();
    let servers = (0..3)
        .map(|_| RedisCatalog::open(settings.clone()).unwrap())
        .collect();
    let several = Several(servers, AtomicUsize::new(0));
    conformance::order::any_order_of_words_ends_with_the_newest(&several).await;
    let [one, other, ..] = &several.0[..] else {
        panic!("there are three");
    };
    // A lease that one holds is seen by the other, and its end wakes who waits there.
    let long = Duration::from_secs(60);
    one.lease_take("l", "one", "kill", long).await.unwrap();
    let held = other.lease_take("l", "other", "", long).await.unwrap();
    assert!(matches!(held, LeaseTake::Held { holder, .. } if holder == "one"));
    let begun = Instant::now();
    let giving = async {
        sleep(Duration::from_millis(50)).await;
        one.lease_give("l", "one").await.unwrap();
    };
    let (over, ()) = tokio::join!(timeout(PATIENCE, other.lease_over("l")), giving);
    over.expect("it is told").unwrap();
    assert!(begun.elapsed() < PATIENCE);
}
