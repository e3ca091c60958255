//! What runs by its row on a node that was given up: nobody knows whether it does, so it takes no place
//! and is on no list, and nothing of its row changes.

use std::collections::BTreeMap;

use casemate_types::sandbox::PublicState;
use casemate_types::{EndReason, Kept, Portable, SandboxId, SandboxState, SnapshotId};

use super::sandboxes::{a_run, a_sandbox};
use super::*;
use crate::{Node, NodeJoin, NodeStanding, Order, Page, Sandbox, SandboxFilter, StoredArtifact};

async fn a_node(store: &dyn Store, id: &str) -> Node {
    let join = NodeJoin {
        id: id.to_owned(),
        address: "10.0.0.7:8082".into(),
        labels: BTreeMap::new(),
        isolation: "namespaces".into(),
    };
    store.node_join(&join).await.unwrap()
}

async fn a_lost_node(store: &dyn Store) -> (String, u64) {
    let joined = a_node(store, &random_uuid()).await;
    let generation = store.node_fence(&joined.id, joined.generation).await;
    (joined.id, generation.unwrap())
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
    a_node(store, "node-1").await;
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
    let ended = store.sandbox_end(&third.id, third.generation, EndReason::Killed, at(30, 0));
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

pub async fn a_node_is_removed_once_nothing_ends_with_it(store: &dyn Store) {
    let team = new_team(store).await;
    let node = a_node(store, &random_uuid()).await.id;
    a_node(store, "another").await;
    let goes = async || store.node_remove_unused(&node).await.unwrap();
    let drain = async |standing| assert!(store.node_set_standing(&node, standing).await.unwrap());
    let at_node = Sandbox {
        node: node.clone(),
        ..a_sandbox(&team, 1)
    };
    let runs = put(store, at_node, None).await.unwrap();
    drain(NodeStanding::Draining).await;
    assert!(!goes().await, "one runs");
    let paused = store.sandbox_pause(&runs.id, runs.generation, at(9, 0), Kept::Memory);
    let generation = paused.await.unwrap();
    assert!(!goes().await, "its files are there alone");
    let artifact = StoredArtifact {
        what: Portable::Snapshot(SnapshotId::random_of_pause()),
        team: team.clone(),
        artifact: "there".into(),
        bytes: 7,
    };
    let stored = store.sandbox_store(&runs.id, generation, &artifact);
    stored.await.unwrap();
    drain(NodeStanding::Open).await;
    assert!(!goes().await, "it may go on at any moment");
    drain(NodeStanding::Draining).await;
    assert!(goes().await);
    assert!(!goes().await, "it is gone");
    assert_eq!(store.node_by_id(&node).await.unwrap(), None);

    // Its sandbox goes on at another one alone, whatever its team may run.
    for max in [None, Some(0), Some(5)] {
        let run = a_run(&node);
        let there = store.sandbox_resume(&runs.id, generation, &run, max);
        let gone = there.await.unwrap_err();
        assert!(matches!(gone, StoreError::NodeGone { .. }), "{gone:?}");
    }
    let run = a_run("another");
    let elsewhere = store.sandbox_resume(&runs.id, generation, &run, Some(5));
    elsewhere.await.unwrap();

    // What has ended keeps no node.
    let unused = a_node(store, &random_uuid()).await.id;
    let ended = Sandbox {
        node: unused.clone(),
        ..a_sandbox(&team, 2)
    };
    let ended = put(store, ended, None).await.unwrap();
    let killed = store.sandbox_end(&ended.id, ended.generation, EndReason::Killed, at(9, 0));
    killed.await.unwrap();
    assert!(store.node_remove_unused(&unused).await.unwrap());
}
