//! What runs by its row on a node that was given up: nobody knows whether it does, so it takes no place
//! and is on no list, and nothing of its row changes.

use std::collections::BTreeMap;

use casemate_types::sandbox::PublicState;
use casemate_types::{Kept, SandboxId, SandboxState, SnapshotId};

use super::sandboxes::{a_run, a_sandbox};
use super::*;
use crate::{NodeJoin, Order, Page, Sandbox, SandboxFilter};

async fn a_lost_node(store: &dyn Store) -> (String, u64) {
    let join = NodeJoin {
        id: random_uuid(),
        address: "10.0.0.7:8082".into(),
        labels: BTreeMap::new(),
        isolation: "namespaces".into(),
    };
    let joined = store.node_join(&join).await.unwrap();
    let generation = store.node_fence(&join.id, joined.generation).await;
    (join.id, generation.unwrap())
}

async fn put(store: &dyn Store, sandbox: Sandbox, max: Option<u32>) -> Result<Sandbox, StoreError> {
    let put = store.sandbox_insert(&sandbox, max).await;
    put.map(|()| sandbox)
}

#[track_caller]
fn check_full<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    let is_full = matches!(result, Err(StoreError::TeamFull { .. }));
    assert!(is_full, "{result:?}");
}

/// In all ways in which running ones are counted.
async fn check_running(store: &dyn Store, team: &TeamId, expected: &[&Sandbox]) {
    let all = SandboxFilter {
        states: vec![PublicState::Running, PublicState::Paused],
        ..SandboxFilter::running(team.clone())
    };
    let page = Page {
        order: Order::OldestFirst,
        after: None,
        rows_max: 10,
    };
    let found = store.sandbox_page(&all, &page).await.unwrap();
    let runs = |row: &&Sandbox| matches!(row.state, SandboxState::Running { .. });
    let ids: Vec<_> = found.iter().filter(runs).map(|row| &row.id).collect();
    let wanted: Vec<_> = expected.iter().map(|row| &row.id).collect();
    assert_eq!(ids, wanted);
    let running = SandboxFilter::running(team.clone());
    let counted = store.sandbox_count(&running).await.unwrap();
    assert_eq!(counted, expected.len() as u64);
    assert_eq!(
        store.sandbox_count(&all).await.unwrap(),
        found.len() as u64,
        "those that rest are counted wherever they are"
    );
    let one = SandboxFilter {
        template: expected.first().map(|row| row.template.clone()),
        ..running
    };
    assert_eq!(
        store.sandbox_count(&one).await.unwrap() > 0,
        !expected.is_empty()
    );
    let by_team = store.sandbox_count_by_team().await.unwrap();
    let of_team = by_team.iter().find(|(id, _)| id == team);
    assert_eq!(of_team.map_or(0, |(_, count)| *count), counted);
}

pub async fn what_runs_on_a_lost_node_is_left_out(store: &dyn Store) {
    let team = new_team(store).await;
    let (node, generation) = a_lost_node(store).await;
    let max = Some(2);
    let here = put(store, a_sandbox(&team, 1), max).await.unwrap();
    let at_lost = |started| Sandbox {
        node: node.clone(),
        ..a_sandbox(&team, started)
    };
    let lost = put(store, at_lost(2), None).await.unwrap();
    let mut rests = at_lost(3);
    rests.state = SandboxState::Paused {
        at: at(9, 0),
        kept: Kept::Memory,
    };
    let rests = put(store, rests, None).await.unwrap();
    check_running(store, &team, &[&here]).await;
    // It is kept, and whoever compares the node's sandboxes with their rows finds it.
    let kept = store.sandbox_by_id(&lost.id).await.unwrap();
    assert_eq!(kept.as_ref(), Some(&lost));
    let alive = store.sandbox_list_alive(Some(&node)).await.unwrap();
    assert_eq!(alive.len(), 2);

    // Its place is free, for one.
    let second = put(store, a_sandbox(&team, 4), max).await.unwrap();
    check_full(put(store, a_sandbox(&team, 5), max).await);
    let paused = store.sandbox_pause(&second.id, second.generation, at(20, 0), Kept::Files);
    let generation_paused = paused.await.unwrap();
    let resume = async || {
        let run = a_run("node-1");
        let resumed = store.sandbox_resume(&second.id, generation_paused, &run, max);
        resumed.await
    };
    let third = put(store, a_sandbox(&team, 6), max).await.unwrap();
    check_full(resume().await);
    let ended = store.sandbox_end(
        &third.id,
        third.generation,
        casemate_types::EndReason::Killed,
        at(30, 0),
    );
    ended.await.unwrap();
    resume().await.unwrap();

    // The node is back: it counts again, also beyond what may run.
    store.node_return(&node, generation).await.unwrap();
    let second = store.sandbox_by_id(&second.id).await.unwrap().unwrap();
    check_running(store, &team, &[&here, &lost, &second]).await;
    check_full(put(store, a_sandbox(&team, 7), max).await);
    assert_eq!(
        store.sandbox_by_id(&rests.id).await.unwrap(),
        Some(rests.clone())
    );
}

pub async fn what_is_left_of_a_removed_node_is_listed(store: &dyn Store) {
    let team = new_team(store).await;
    let (node, _) = a_lost_node(store).await;
    let (stays, _) = a_lost_node(store).await;
    let at_node = |node: &str, started| Sandbox {
        node: node.to_owned(),
        ..a_sandbox(&team, started)
    };
    let runs = put(store, at_node(&node, 1), None).await.unwrap();
    let mut rests = at_node(&node, 2);
    rests.state = SandboxState::Paused {
        at: at(9, 0),
        kept: Kept::Memory,
    };
    let mut stored = rests.clone();
    stored.id = SandboxId::random();
    stored.stored_files = Some(SnapshotId::random_of_pause());
    let rests = put(store, rests, None).await.unwrap();
    put(store, stored, None).await.unwrap();
    put(store, at_node(&stays, 3), None).await.unwrap();
    let left = async || {
        let mut found = store.sandbox_list_nowhere().await.unwrap();
        found.retain(|row| row.team == team);
        found.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(left().await, []);
    assert!(store.node_remove(&node).await.unwrap());
    assert_eq!(left().await, [runs.id, rests.id]);
}
