//! [`crate::Servers`], [`crate::Leases`], [`crate::Nodes`] and [`crate::JoinTokens`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::nodes::{FIRST_NODE_GENERATION, LABELS_BYTES_MAX, LABELS_MAX};
use crate::{JoinRole, LeaseTaken, NewJoinToken, Node, NodeJoin, NodeStanding, Server, ServerBeat};

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(20);

async fn server(store: &dyn Store, id: &str, seen_within: Duration) -> Option<Server> {
    let listed = store.server_list(seen_within).await.unwrap();
    listed.into_iter().find(|server| server.id == id)
}

pub async fn a_server_is_there_while_it_says_so(store: &dyn Store) {
    let mut beat = ServerBeat {
        id: random_uuid(),
        address: None,
        version: "1.0".into(),
    };
    assert_eq!(server(store, &beat.id, LONG).await, None);
    store.server_beat(&beat).await.unwrap();
    let first = server(store, &beat.id, LONG).await.unwrap();
    assert_eq!(first.since, first.seen_at);
    beat.address = Some("10.0.0.1:8082".into());
    beat.version = "1.1".into();
    let said = store.server_beat(&beat).await.unwrap();
    let again = server(store, &beat.id, LONG).await.unwrap();
    assert_eq!(
        (&again.address, &again.version),
        (&beat.address, &beat.version)
    );
    assert_eq!(again.since, first.since);
    assert!(again.seen_at >= first.seen_at);
    assert_eq!(again.seen_at, said);

    let clock = store.server_clock().await.unwrap();
    assert!(clock >= again.seen_at, "{clock} is the clock of beats");
    let until = Instant::now() + DEADLINE;
    while server(store, &beat.id, SHORT).await.is_some() {
        assert!(Instant::now() < until, "it is seen for ever");
    }
    store.server_forget(LONG).await.unwrap();
    assert!(server(store, &beat.id, LONG).await.is_some());
    assert!(store.server_forget(SHORT).await.unwrap() >= 1);
    assert_eq!(server(store, &beat.id, LONG).await, None);

    store.server_beat(&beat).await.unwrap();
    store.server_leave(&beat.id).await.unwrap();
    store.server_leave(&beat.id).await.unwrap();
    assert_eq!(server(store, &beat.id, LONG).await, None);
}

async fn take(store: &dyn Store, name: &str, holder: &str, lasts: Duration) -> LeaseTaken {
    store.lease_take(name, holder, lasts).await.unwrap()
}

/// The generation of one that is held.
#[track_caller]
fn held(taken: LeaseTaken) -> u64 {
    match taken {
        LeaseTaken::Held { generation } => generation,
        LeaseTaken::HeldBy { holder, left } => panic!("held by {holder} for {left:?}"),
    }
}

pub async fn a_lease_has_one_holder(store: &dyn Store) {
    let name = random_uuid();
    let first = held(take(store, &name, "a", LONG).await);
    assert_eq!(held(take(store, &name, "a", LONG).await), first);
    match take(store, &name, "b", LONG).await {
        LeaseTaken::HeldBy { holder, left } => {
            assert_eq!(holder, "a");
            assert!(left <= LONG && left > LONG / 2, "{left:?}");
        }
        taken => panic!("{taken:?}"),
    }
    assert!(!store.lease_give(&name, "b").await.unwrap());
    assert!(store.lease_give(&name, "a").await.unwrap());
    assert!(!store.lease_give(&name, "a").await.unwrap());
    assert_eq!(held(take(store, &name, "b", LONG).await), first + 1);
    let other = random_uuid();
    held(take(store, &other, "a", LONG).await);
}

pub async fn a_lease_that_ran_out_is_taken_over(store: &dyn Store) {
    let name = random_uuid();
    let first = held(take(store, &name, "a", SHORT).await);
    let until = Instant::now() + DEADLINE;
    let second = loop {
        if let LeaseTaken::Held { generation } = take(store, &name, "b", SHORT).await {
            break generation;
        }
        assert!(Instant::now() < until, "it never ran out");
    };
    assert_eq!(second, first + 1);
    // Its holder too must learn that others could have had it meanwhile.
    let until = Instant::now() + DEADLINE;
    while !matches!(
        take(store, &name, "c", Duration::ZERO).await,
        LeaseTaken::Held { .. }
    ) {
        assert!(Instant::now() < until, "it never ran out");
    }
    assert_eq!(held(take(store, &name, "b", LONG).await), second + 2);
}

pub async fn leases_are_listed_with_how_long_nobody_has_them(store: &dyn Store) {
    let (prefix, other) = (random_uuid(), random_uuid());
    let name = |of: &str| format!("{prefix}/{of}");
    held(take(store, &name("given"), "a", LONG).await);
    held(take(store, &name("held"), "a", LONG).await);
    held(take(store, &name("over"), "a", Duration::ZERO).await);
    held(take(store, &other, "a", Duration::ZERO).await);
    assert!(store.lease_give(&name("given"), "a").await.unwrap());
    let until = Instant::now() + DEADLINE;
    loop {
        let listed = store.lease_list(&format!("{prefix}/")).await.unwrap();
        let names: Vec<&str> = listed.iter().map(|lease| lease.name.as_str()).collect();
        assert_eq!(names, [name("given"), name("held"), name("over")]);
        let free_for = |at: usize| listed[at].free_for;
        assert_eq!(free_for(1), None);
        let free = [free_for(0).unwrap(), free_for(2).unwrap()];
        assert!(free.iter().all(|free| *free < LONG), "{free:?}");
        if free.iter().all(|free| *free >= SHORT) {
            break;
        }
        assert!(Instant::now() < until, "no time passes");
    }
    held(take(store, &name("given"), "b", LONG).await);
    let listed = store.lease_list(&name("given")).await.unwrap();
    assert_eq!((listed.len(), listed[0].free_for), (1, None));
}

pub async fn a_lease_race_has_one_winner(store: &dyn Store) {
    let name = random_uuid();
    let (a, b, c) = tokio::join!(
        take(store, &name, "a", LONG),
        take(store, &name, "b", LONG),
        take(store, &name, "c", LONG)
    );
    let is_held = |taken: &&LeaseTaken| matches!(taken, LeaseTaken::Held { .. });
    assert_eq!(
        [&a, &b, &c].into_iter().filter(is_held).count(),
        1,
        "{a:?} {b:?} {c:?}"
    );
}

fn a_node() -> NodeJoin {
    NodeJoin {
        id: random_uuid(),
        address: "10.0.0.7:8082".into(),
        labels: BTreeMap::from([("zone".into(), "a".into())]),
        isolation: "namespaces".into(),
    }
}

async fn node(store: &dyn Store, id: &str) -> Node {
    store.node_by_id(id).await.unwrap().unwrap()
}

pub async fn a_node_joins_again_under_its_id(store: &dyn Store) {
    let mut join = a_node();
    let joined = store.node_join(&join).await.unwrap();
    assert_eq!(joined.labels, join.labels);
    assert_eq!(
        (joined.standing, joined.lost_at),
        (NodeStanding::Open, None)
    );
    assert_eq!(joined.generation, FIRST_NODE_GENERATION);
    assert_eq!(node(store, &join.id).await, joined);
    assert!(store.node_list().await.unwrap().contains(&joined));

    let cordoned = store
        .node_set_standing(&join.id, NodeStanding::Cordoned)
        .await;
    assert!(cordoned.unwrap());
    join.address = "10.0.0.8:8082".into();
    join.labels.clear();
    let again = store.node_join(&join).await.unwrap();
    assert_eq!(
        (&again.address, &again.labels),
        (&join.address, &join.labels)
    );
    assert_eq!(again.standing, NodeStanding::Cordoned);
    assert_eq!(
        (again.generation, again.joined_at),
        (joined.generation, joined.joined_at)
    );

    assert!(store.node_remove(&join.id).await.unwrap());
    assert!(!store.node_remove(&join.id).await.unwrap());
    assert_eq!(store.node_by_id(&join.id).await.unwrap(), None);
    let gone = store
        .node_set_standing(&join.id, NodeStanding::Draining)
        .await;
    assert!(!gone.unwrap());
}

pub async fn a_fenced_node_returns_with_its_generation_only(store: &dyn Store) {
    let join = a_node();
    let first = store.node_join(&join).await.unwrap().generation;
    let second = store.node_fence(&join.id, first).await.unwrap();
    assert_eq!(second, first + 1);
    check_conflict(store.node_fence(&join.id, first).await);
    let lost = store.node_join(&join).await.unwrap();
    assert!(lost.lost_at.is_some(), "joining is not returning");
    assert_eq!(lost.generation, second);
    check_conflict(store.node_return(&join.id, first).await);
    store.node_return(&join.id, second).await.unwrap();
    let back = node(store, &join.id).await;
    assert_eq!((back.lost_at, back.generation), (None, second));
    check_conflict(store.node_return(&random_uuid(), second).await);
}

pub async fn labels_of_a_node_are_bounded(store: &dyn Store) {
    let labels = |count: usize, bytes: usize| NodeJoin {
        labels: (0..count)
            .map(|n| (n.to_string(), "x".repeat(bytes)))
            .collect(),
        ..a_node()
    };
    store.node_join(&labels(LABELS_MAX, 1)).await.unwrap();
    check_too_large(store.node_join(&labels(LABELS_MAX + 1, 1)).await);
    check_too_large(store.node_join(&labels(1, LABELS_BYTES_MAX)).await);
}

fn a_token(lasts: Duration, uses_left: Option<u32>) -> NewJoinToken {
    NewJoinToken {
        id: random_uuid(),
        hash: [7; 32],
        role: JoinRole::Edge,
        lasts,
        uses_left,
    }
}

pub async fn a_join_token_is_used_as_often_as_it_may_be(store: &dyn Store) {
    let token = a_token(LONG, Some(2));
    let kept = store.join_token_put(&token).await.unwrap();
    assert_eq!((kept.hash, kept.role), (token.hash, token.role));
    check_exists(store.join_token_put(&token).await);
    let role = store
        .join_token_use(&token.id, &[8; 32], JoinRole::Edge)
        .await
        .unwrap();
    assert_eq!(role, None, "another token's hash");
    for _ in 0..3 {
        let role = store.join_token_use(&token.id, &token.hash, JoinRole::Node);
        assert_eq!(role.await.unwrap(), Some(JoinRole::Edge), "no use of it");
    }
    let (a, b, c) = tokio::join!(
        store.join_token_use(&token.id, &token.hash, JoinRole::Edge),
        store.join_token_use(&token.id, &token.hash, JoinRole::Edge),
        store.join_token_use(&token.id, &token.hash, JoinRole::Edge)
    );
    let used = [a.unwrap(), b.unwrap(), c.unwrap()].into_iter().flatten();
    assert_eq!(used.collect::<Vec<_>>(), [JoinRole::Edge; 2]);
    let listed = store.join_token_list().await.unwrap();
    let left = listed.into_iter().find(|one| one.id == token.id).unwrap();
    assert_eq!(left.uses_left, Some(0));

    let unbounded = a_token(LONG, None);
    store.join_token_put(&unbounded).await.unwrap();
    for _ in 0..3 {
        let role = store
            .join_token_use(&unbounded.id, &unbounded.hash, JoinRole::Edge)
            .await;
        assert_eq!(role.unwrap(), Some(JoinRole::Edge));
    }
    assert!(store.join_token_revoke(&unbounded.id).await.unwrap());
    assert!(!store.join_token_revoke(&unbounded.id).await.unwrap());
    let role = store
        .join_token_use(&unbounded.id, &unbounded.hash, JoinRole::Edge)
        .await;
    assert_eq!(role.unwrap(), None);
}

pub async fn an_expired_join_token_is_worth_nothing(store: &dyn Store) {
    let (old, young) = (a_token(Duration::ZERO, None), a_token(LONG, None));
    store.join_token_put(&old).await.unwrap();
    store.join_token_put(&young).await.unwrap();
    let role = store
        .join_token_use(&old.id, &old.hash, JoinRole::Edge)
        .await
        .unwrap();
    assert_eq!(role, None);
    assert!(store.join_token_forget_expired().await.unwrap() >= 1);
    let listed = store.join_token_list().await.unwrap();
    assert!(listed.iter().all(|one| one.id != old.id));
    assert!(listed.iter().any(|one| one.id == young.id));
}
