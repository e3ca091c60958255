//! Idempotency keys.

use std::time::Duration;

use super::*;
use crate::idempotency::ANSWER_BYTES_MAX;
use crate::{Begun, KeyClaim, RequestHash, ServerBeat};

const REQUEST: RequestHash = [7; 32];
const OTHER: RequestHash = [8; 32];

fn claim(team: &TeamId, key: &str) -> KeyClaim {
    claim_as(team, key, "this-process")
}

fn claim_as(team: &TeamId, key: &str, owner: &str) -> KeyClaim {
    KeyClaim {
        team: team.clone(),
        key: key.into(),
        owner: owner.into(),
        at: at(100, 0),
    }
}

async fn begin(store: &dyn Store, team: &TeamId, key: &str) -> Begun {
    let begun = store.idempotency_begin(&claim(team, key), &REQUEST).await;
    begun.unwrap()
}

async fn finish(
    store: &dyn Store,
    team: &TeamId,
    key: &str,
    answer: &str,
) -> Result<(), StoreError> {
    store.idempotency_finish(&claim(team, key), answer).await
}

pub async fn idempotency_key_is_taken_once(store: &dyn Store) {
    let (team, other) = (new_team(store).await, new_team(store).await);
    assert_eq!(begin(store, &team, "k").await, Begun::New);
    assert_eq!(begin(store, &team, "k").await, Begun::InProgress);
    assert_eq!(begin(store, &team, "k2").await, Begun::New);
    assert_eq!(begin(store, &other, "k").await, Begun::New);
}

pub async fn idempotency_race_has_one_winner(store: &dyn Store) {
    let team = new_team(store).await;
    let (a, b, c) = tokio::join!(
        begin(store, &team, "k"),
        begin(store, &team, "k"),
        begin(store, &team, "k")
    );
    let new = [&a, &b, &c].iter().filter(|b| ***b == Begun::New).count();
    assert_eq!(new, 1, "{a:?} {b:?} {c:?}");
}

pub async fn idempotency_answer_is_replayed(store: &dyn Store) {
    let team = new_team(store).await;
    check_conflict(finish(store, &team, "k", "{}").await);
    begin(store, &team, "k").await;
    let beyond = "x".repeat(ANSWER_BYTES_MAX + 1);
    check_too_large(finish(store, &team, "k", &beyond).await);
    assert_eq!(begin(store, &team, "k").await, Begun::InProgress);
    let answer = r#"{"sandbox":"i1"}"#;
    finish(store, &team, "k", answer).await.unwrap();
    let done = Begun::Done {
        answer: answer.into(),
    };
    for _ in 0..2 {
        assert_eq!(begin(store, &team, "k").await, done);
    }
    check_conflict(finish(store, &team, "k", "{}").await);
    store.idempotency_abandon(&claim(&team, "k")).await.unwrap();
    assert_eq!(begin(store, &team, "k").await, done);
}

pub async fn idempotency_other_request_is_a_mismatch(store: &dyn Store) {
    let team = new_team(store).await;
    let claim = claim(&team, "k");
    let other = || store.idempotency_begin(&claim, &OTHER);
    begin(store, &team, "k").await;
    assert_eq!(other().await.unwrap(), Begun::Mismatch);
    finish(store, &team, "k", "{}").await.unwrap();
    assert_eq!(other().await.unwrap(), Begun::Mismatch);
}

pub async fn idempotency_abandoned_key_is_free(store: &dyn Store) {
    let team = new_team(store).await;
    store.idempotency_abandon(&claim(&team, "k")).await.unwrap();
    begin(store, &team, "k").await;
    store.idempotency_abandon(&claim(&team, "k")).await.unwrap();
    assert_eq!(begin(store, &team, "k").await, Begun::New);
}

/// What a call says late, or twice, is about its own claim: another process has the key by then, or the
/// same one for another call.
pub async fn idempotency_word_of_a_former_claim_changes_nothing(store: &dyn Store) {
    let team = new_team(store).await;
    let former = claim(&team, "k");
    begin(store, &team, "k").await;
    store.idempotency_abandon(&former).await.unwrap();
    let another = claim_as(&team, "k", "another-process");
    let later = KeyClaim {
        at: at(100, 1),
        ..former.clone()
    };
    for now in [another, later] {
        let begun = store.idempotency_begin(&now, &REQUEST).await;
        assert_eq!(begun.unwrap(), Begun::New);
        store.idempotency_abandon(&former).await.unwrap();
        check_conflict(store.idempotency_finish(&former, "{}").await);
        assert_eq!(begin(store, &team, "k").await, Begun::InProgress);
        store.idempotency_abandon(&now).await.unwrap();
    }
    assert_eq!(begin(store, &team, "k").await, Begun::New);
}

pub async fn idempotency_of_the_dead_is_unknown(store: &dyn Store) {
    let team = new_team(store).await;
    let dead = format!("dead-{team}");
    let begin_as = async |key: &str, owner: &str| {
        let claim = claim_as(&team, key, owner);
        store.idempotency_begin(&claim, &REQUEST).await.unwrap()
    };
    begin_as("lost", &dead).await;
    begin_as("done", &dead).await;
    let done = claim_as(&team, "done", &dead);
    store.idempotency_finish(&done, "{}").await.unwrap();
    begin_as("alive", "this-process").await;
    let other = format!("alive-{team}");
    let beat = ServerBeat {
        id: other.clone(),
        address: None,
        version: "1".into(),
    };
    store.server_beat(&beat).await.unwrap();
    begin_as("theirs", &other).await;
    let orphan = async || {
        let orphaned = store.idempotency_orphan("this-process", Duration::from_secs(600));
        orphaned.await.unwrap()
    };
    assert!(orphan().await >= 1);
    assert_eq!(orphan().await, 0);
    assert_eq!(begin_as("theirs", &other).await, Begun::InProgress);
    store.server_leave(&other).await.unwrap();
    assert_eq!(orphan().await, 1);
    assert_eq!(begin_as("theirs", &other).await, Begun::Unknown);
    assert_eq!(begin_as("lost", "this-process").await, Begun::Unknown);
    assert_eq!(
        begin_as("done", "this-process").await,
        Begun::Done {
            answer: "{}".into()
        }
    );
    assert_eq!(begin_as("alive", "this-process").await, Begun::InProgress);
    let lost = claim_as(&team, "lost", &dead);
    check_conflict(store.idempotency_finish(&lost, "{}").await);
}

pub async fn idempotency_purge_keeps_what_runs(store: &dyn Store) {
    let team = new_team(store).await;
    for key in ["done", "running"] {
        begin(store, &team, key).await;
    }
    finish(store, &team, "done", "{}").await.unwrap();
    store.idempotency_purge(at(100, 0)).await.unwrap();
    assert!(matches!(
        begin(store, &team, "done").await,
        Begun::Done { .. }
    ));
    assert!(store.idempotency_purge(at(101, 0)).await.unwrap() >= 1);
    assert_eq!(begin(store, &team, "done").await, Begun::New);
    assert_eq!(begin(store, &team, "running").await, Begun::InProgress);
}
