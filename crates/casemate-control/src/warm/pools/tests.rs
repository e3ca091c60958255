use std::collections::BTreeMap;

use casemate_store::BuildId;
use casemate_types::{CompiledPolicy, OnTimeout, Resources};
use tokio::time::advance;

use super::*;

const LIMITS: WarmPoolConfig = WarmPoolConfig {
    size: 4,
    size_per_template: 3,
    idle: Duration::from_secs(300),
};

const NODE: &str = "n1";

fn key(build: &str) -> Key {
    Key {
        team: "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405162".parse().unwrap(),
        build: BuildId::parse(build).unwrap(),
        network: String::new(),
    }
}

fn one() -> Key {
    key("6a0e3e2c-5a48-4f7c-8a9b-000000000001")
}

fn two() -> Key {
    key("6a0e3e2c-5a48-4f7c-8a9b-000000000002")
}

fn request(key: &Key) -> CreateRequest {
    CreateRequest {
        sandbox: SandboxId::random(),
        team: key.team.clone(),
        template: "one".parse().unwrap(),
        layers: vec!["base".into()],
        distribution: None,
        resources: Resources::BASE,
        network: CompiledPolicy::open(),
        envs: BTreeMap::new(),
        access_token: None,
        default_user: "user".into(),
        default_workdir: None,
        life_ms: 0,
        on_timeout: OnTimeout::Kill,
        files: None,
        startup: None,
        warm: true,
        creator: String::new(),
        entrance: None,
    }
}

fn used(pools: &mut Pools, key: &Key, times: usize) {
    for _ in 0..times {
        assert!(pools.used(key, request(key)).is_empty());
    }
}

/// Does all that is to be done, without failures: what was ended.
fn fill(pools: &mut Pools) -> Vec<SandboxId> {
    let mut ended = Vec::new();
    loop {
        match pools.next(Instant::now()) {
            Next::Make(key, _) => {
                let sandbox = SandboxId::random();
                pools.begin(&key, &sandbox);
                pools.asked(&sandbox, NODE);
                assert!(pools.made(&key, &sandbox));
            }
            Next::End(Gone { sandbox, node }) => {
                assert_eq!(node, NODE);
                assert!(pools.forget(&sandbox));
                ended.push(sandbox);
            }
            Next::Wait(_) => return ended,
        }
    }
}

fn size(pools: &Pools, key: &Key) -> usize {
    pools.pools.get(key).map_or(0, Pool::size)
}

#[tokio::test(start_paused = true)]
async fn as_many_wait_as_were_asked_for_lately_within_limits() {
    let mut pools = Pools::new(LIMITS);
    used(&mut pools, &one(), 2);
    fill(&mut pools);
    assert_eq!(size(&pools, &one()), 2);
    used(&mut pools, &one(), 10);
    fill(&mut pools);
    assert_eq!(size(&pools, &one()), 3);
    // What is given away is made again, as long as anybody asks.
    let taken = pools.take(&one()).unwrap();
    assert!(pools.has(&taken.sandbox));
    pools.forget(&taken.sandbox);
    used(&mut pools, &one(), 1);
    advance(CALM).await;
    fill(&mut pools);
    assert_eq!((size(&pools, &one()), pools.waiting()), (3, 3));
    // And when nobody does they end by themselves, and nothing is remembered.
    advance(LIMITS.idle).await;
    assert!(matches!(pools.next(Instant::now()), Next::Wait(None)));
    assert!(pools.pools.is_empty() && pools.known.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_next_one_is_made_after_the_answer_and_however_often_one_is_asked_for() {
    let mut pools = Pools::new(LIMITS);
    used(&mut pools, &one(), 3);
    fill(&mut pools);
    let take = |pools: &mut Pools| {
        let taken = pools.take(&one()).unwrap();
        pools.forget(&taken.sandbox);
        used(pools, &one(), 1);
    };
    take(&mut pools);
    let due = Instant::now() + CALM;
    assert!(matches!(pools.next(Instant::now()), Next::Wait(Some(at)) if at == due));
    advance(CALM).await;
    // Another one is taken at once, and does not put off what is wanted for longer.
    take(&mut pools);
    fill(&mut pools);
    assert_eq!(pools.waiting(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_whose_time_is_over_is_not_given_away() {
    let mut pools = Pools::new(LIMITS);
    used(&mut pools, &one(), 1);
    fill(&mut pools);
    let Next::Wait(Some(at)) = pools.next(Instant::now()) else {
        panic!("there is nothing to do");
    };
    assert_eq!(at, Instant::now() + LIMITS.idle);
    advance(LIMITS.idle - LEFT_MIN).await;
    assert!(pools.take(&one()).is_none());
}

#[tokio::test(start_paused = true)]
async fn those_that_nobody_asks_for_any_more_make_room() {
    let mut pools = Pools::new(LIMITS);
    used(&mut pools, &one(), 3);
    fill(&mut pools);
    advance(Duration::from_secs(1)).await;
    used(&mut pools, &two(), 3);
    let ended = fill(&mut pools);
    // Until they are even: four fit.
    assert_eq!(ended.len(), 1);
    assert_eq!((size(&pools, &one()), size(&pools, &two())), (2, 2));
    // Whoever was asked for last takes no more than that.
    used(&mut pools, &one(), 1);
    assert!(fill(&mut pools).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_team_keeps_its_last_one_and_no_more_pools_than_it_may() {
    let mut pools = Pools::new(LIMITS);
    used(&mut pools, &one(), 1);
    fill(&mut pools);
    let network = |number: usize| Key {
        team: "0b7a2b0e-6f5c-4b43-9c0c-1d2e3f405163".parse().unwrap(),
        network: number.to_string(),
        ..two()
    };
    let mut ended = Vec::new();
    for number in 0..3 * POOLS_MAX {
        advance(Duration::from_millis(1)).await;
        let key = network(number);
        let gone = pools.used(&key, request(&key));
        ended.extend(gone.into_iter().map(|one| one.sandbox));
        ended.extend(fill(&mut pools));
        assert!(size(&pools, &key) == 1, "the newest has one");
        assert!(pools.waiting() <= LIMITS.size);
    }
    assert_eq!(pools.pools.len(), POOLS_MAX + 1);
    assert_eq!((size(&pools, &one()), pools.waiting()), (1, LIMITS.size));
    // All others of that team made room.
    assert_eq!(ended.len(), 3 * POOLS_MAX - (LIMITS.size - 1));
}

#[tokio::test(start_paused = true)]
async fn slow_starts_keep_nobody_from_being_made() {
    let mut pools = Pools::new(LIMITS);
    used(&mut pools, &one(), 2);
    let mut slow = Vec::new();
    for _ in 0..2 {
        let Next::Make(key, _) = pools.next(Instant::now()) else {
            panic!("one is wanted");
        };
        let sandbox = SandboxId::random();
        pools.begin(&key, &sandbox);
        slow.push(sandbox);
    }
    used(&mut pools, &two(), 1);
    assert!(matches!(pools.next(Instant::now()), Next::Wait(_)));
    pools.placed(&slow[0]);
    let Next::Make(key, _) = pools.next(Instant::now()) else {
        panic!("one is wanted");
    };
    assert_eq!(key, two());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_be_filled_is_tried_less_and_less() {
    let mut pools = Pools::new(LIMITS);
    used(&mut pools, &one(), 3);
    let fail = |pools: &mut Pools| {
        let Next::Make(key, _) = pools.next(Instant::now()) else {
            panic!("one is wanted");
        };
        let sandbox = SandboxId::random();
        pools.begin(&key, &sandbox);
        pools.failed(&key, &sandbox);
        let Next::Wait(Some(at)) = pools.next(Instant::now()) else {
            panic!("not yet");
        };
        at - Instant::now()
    };
    assert_eq!(fail(&mut pools), RETRY_MIN);
    advance(RETRY_MIN).await;
    assert_eq!(fail(&mut pools), 2 * RETRY_MIN);
    advance(2 * RETRY_MIN).await;
    fill(&mut pools);
    // What could be made is no proof that it serves.
    assert_eq!((size(&pools, &one()), pools.pools[&one()].failures), (3, 2));
    pools.given(&one());
    assert_eq!(pools.pools[&one()].failures, 0);
}

#[tokio::test(start_paused = true)]
async fn what_ended_or_was_dropped_is_not_given_away() {
    let mut pools = Pools::new(LIMITS);
    used(&mut pools, &one(), 3);
    fill(&mut pools);
    let first = pools.pools[&one()].ready[0].sandbox.clone();
    assert!(pools.forget(&first) && !pools.forget(&first));
    let second = pools.pools[&one()].ready[0].sandbox.clone();
    assert!(pools.ended(&second) && !pools.ended(&second));
    assert_eq!(pools.ready_at(NODE).len(), 1);
    // It came before its time: whatever ends it may end the next one.
    assert!(matches!(pools.next(Instant::now()), Next::Wait(Some(_))));
    advance(RETRY_MIN).await;
    assert!(matches!(pools.next(Instant::now()), Next::Make(..)));
    // Its template goes while another one is made, and one is being given away.
    let taken = pools.take(&one()).unwrap();
    let making = SandboxId::random();
    pools.begin(&one(), &making);
    pools.asked(&making, NODE);
    assert!(pools.drop_of(&"one".parse().unwrap()).is_empty());
    assert!(!pools.made(&one(), &making) && !pools.has(&making));
    pools.put_back(&one(), &taken);
    assert!(!pools.has(&taken.sandbox) && pools.waiting() == 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_given_away_after_all_waits_for_the_rest_of_its_time() {
    let mut pools = Pools::new(LIMITS);
    used(&mut pools, &one(), 1);
    fill(&mut pools);
    let taken = pools.take(&one()).unwrap();
    assert!(pools.take(&one()).is_none());
    advance(Duration::from_secs(100)).await;
    pools.put_back(&one(), &taken);
    assert_eq!(pools.take(&one()).unwrap().until, taken.until);
}

#[test]
fn none_are_kept_where_none_may_be() {
    for limits in [
        WarmPoolConfig { size: 0, ..LIMITS },
        WarmPoolConfig {
            size_per_template: 0,
            ..LIMITS
        },
    ] {
        let mut pools = Pools::new(limits);
        used(&mut pools, &one(), 3);
        assert!(matches!(pools.next(Instant::now()), Next::Wait(None)));
    }
}
