//! [`crate::Artifacts`].

use casemate_types::{EndReason, Kept, LayerId, Portable, SandboxId, SnapshotId};

use super::builds::{a_known_team, a_request, finished, request};
use super::sandboxes::{a_run, a_sandbox};
use super::snapshots::{a_snapshot, files};
use super::*;
use crate::{Sandbox, StoredArtifact};

fn stored(what: &Portable, team: &Team, artifact: &str) -> StoredArtifact {
    StoredArtifact {
        what: what.clone(),
        team: team.id.clone(),
        artifact: artifact.into(),
        bytes: 1 << 40,
    }
}

async fn is_unneeded(store: &dyn Store, what: &Portable) -> bool {
    let all = store.artifact_unneeded(u32::MAX).await.unwrap();
    all.iter().any(|one| one.what == *what)
}

pub async fn what_ready_builds_need_is_due_until_it_is_stored(store: &dyn Store) {
    let team = a_known_team(store).await;
    let (layer, nobodys) = (LayerId::random(), LayerId::random());
    let new = a_request(&team, "mine", &["default"], 10);
    let template = request(store, &new).await;
    let mut build = finished(&new, &template);
    build.layers = vec![layer.to_string(), "base".into()];
    store
        .build_begin(&new.build, "a-server", at(11, 0))
        .await
        .unwrap();
    let (what, other) = (Portable::Layer(layer), Portable::Layer(nobodys));
    let both = [what.clone(), other.clone()];
    assert_eq!(store.artifact_due(&both).await.unwrap(), []);
    store.build_finish(&build, 1, at(12, 0)).await.unwrap();
    let due = store.artifact_due(&both).await.unwrap();
    assert_eq!(due, [(what.clone(), team.id.clone())]);

    let first = stored(&what, &team, "first");
    assert!(store.artifact_put(&first).await.unwrap());
    let second = stored(&what, &team, "second");
    assert!(!store.artifact_put(&second).await.unwrap());
    assert_eq!(store.artifact_due(&both).await.unwrap(), []);
    assert_eq!(store.artifact_find(&both).await.unwrap(), [first]);
    assert_eq!(
        store.artifact_references(&team.id).await.unwrap(),
        ["first"]
    );

    let (kept, lost) = (stored(&what, &team, "first"), stored(&other, &team, "lost"));
    assert!(store.artifact_put(&lost).await.unwrap());
    assert!(!is_unneeded(store, &what).await);
    assert!(is_unneeded(store, &other).await);
    store.template_delete(&template).await.unwrap();
    assert!(is_unneeded(store, &what).await);
    assert!(!store.artifact_forget(&second).await.unwrap());
    for one in [&kept, &lost] {
        assert!(store.artifact_forget(one).await.unwrap());
        assert!(!store.artifact_forget(one).await.unwrap());
    }
    assert_eq!(store.artifact_find(&both).await.unwrap(), []);
    assert!(!is_unneeded(store, &what).await);
}

pub async fn files_of_snapshots_are_due_as_well(store: &dyn Store) {
    let team = a_known_team(store).await;
    let new = a_snapshot(&team, None, "default", 10);
    let what = Portable::Snapshot(files(&new));
    let nobodys = Portable::Snapshot(SnapshotId::random());
    let both = [what.clone(), nobodys];
    assert_eq!(store.artifact_due(&both).await.unwrap(), []);
    store.snapshot_insert(&new).await.unwrap();
    let due = store.artifact_due(&both).await.unwrap();
    assert_eq!(due, [(what.clone(), team.id.clone())]);
    let one = stored(&what, &team, "files");
    assert!(store.artifact_put(&one).await.unwrap());
    assert!(!is_unneeded(store, &what).await);
    store.template_delete(&new.build.template).await.unwrap();
    assert!(is_unneeded(store, &what).await);
    assert!(store.artifact_forget(&one).await.unwrap());
}

/// Paused at 20 s with this kept.
async fn a_paused(store: &dyn Store, team: &Team, kept: Kept) -> Sandbox {
    let mut sandbox = a_sandbox(&team.id, 1);
    store.sandbox_insert(&sandbox, None).await.unwrap();
    let paused = store.sandbox_pause(&sandbox.id, sandbox.generation, at(20, 0), kept);
    sandbox.generation = paused.await.unwrap();
    sandbox
}

async fn stored_of(store: &dyn Store, sandbox: &Sandbox) -> Option<SnapshotId> {
    let row = store.sandbox_by_id(&sandbox.id).await.unwrap();
    row.unwrap().stored_files
}

/// Notes that it is stored, under a name of its own.
async fn store_pause(store: &dyn Store, team: &Team, sandbox: &Sandbox) -> StoredArtifact {
    let files = SnapshotId::random_of_pause();
    let what = Portable::Snapshot(files.clone());
    let former = stored(&what, team, "former");
    assert!(store.artifact_put(&former).await.unwrap());
    let artifact = stored(&what, team, files.as_str());
    let put = store.sandbox_store(&sandbox.id, sandbox.generation, &artifact);
    put.await.unwrap();
    assert_eq!(stored_of(store, sandbox).await, Some(files));
    assert!(!is_unneeded(store, &what).await);
    assert!(!store.artifact_forget(&former).await.unwrap(), "another");
    let found = store.artifact_find(&[what]).await.unwrap();
    assert_eq!(found, [artifact]);
    found.into_iter().next().unwrap()
}

async fn check_gone(store: &dyn Store, sandbox: &Sandbox, artifact: &StoredArtifact) {
    assert_eq!(stored_of(store, sandbox).await, None);
    assert!(is_unneeded(store, &artifact.what).await);
    assert!(store.artifact_forget(artifact).await.unwrap());
}

pub async fn what_is_stored_of_a_pause_counts_until_it_is_over(store: &dyn Store) {
    let team = a_known_team(store).await;
    let mut sandbox = a_paused(store, &team, Kept::Memory).await;
    let id = sandbox.id.clone();
    let put = store_pause(store, &team, &sandbox).await;
    // Another one stored it at the same time.
    let twice = StoredArtifact {
        what: Portable::Snapshot(SnapshotId::random_of_pause()),
        ..put.clone()
    };
    for late in [&twice, &stored(&put.what, &team, "late")] {
        let late = store.sandbox_store(&id, sandbox.generation, late);
        check_conflict(late.await);
    }
    let found = store.artifact_find(&[twice.what, put.what.clone()]).await;
    assert_eq!(found.unwrap(), std::slice::from_ref(&put));
    // Less is kept of the same pause: its files are the same.
    let less = store.sandbox_pause(&id, sandbox.generation, at(20, 0), Kept::Files);
    sandbox.generation = less.await.unwrap();
    assert!(stored_of(store, &sandbox).await.is_some());
    // A run that nobody wrote down came between.
    let anew = store.sandbox_pause(&id, sandbox.generation, at(21, 0), Kept::Files);
    sandbox.generation = anew.await.unwrap();
    check_gone(store, &sandbox, &put).await;

    let put = store_pause(store, &team, &sandbox).await;
    let run = a_run("node-2");
    let resumed = store.sandbox_resume(&id, sandbox.generation, &run, None);
    sandbox.generation = resumed.await.unwrap();
    check_gone(store, &sandbox, &put).await;
    let late = store.sandbox_store(&id, sandbox.generation, &put);
    check_conflict(late.await);
    let found = store.artifact_find(std::slice::from_ref(&put.what)).await;
    assert_eq!(found.unwrap(), [], "nothing is noted then");

    let paused = store.sandbox_pause(&id, sandbox.generation, at(50, 0), Kept::Files);
    sandbox.generation = paused.await.unwrap();
    let before = store.sandbox_store(&id, sandbox.generation - 1, &put);
    check_conflict(before.await);
    let put = store_pause(store, &team, &sandbox).await;
    let end = store.sandbox_end(&id, sandbox.generation, EndReason::Killed, at(60, 0));
    sandbox.generation = end.await.unwrap();
    check_gone(store, &sandbox, &put).await;
}

pub async fn pauses_that_are_not_stored_are_listed(store: &dyn Store) {
    let team = a_known_team(store).await;
    let node = format!("node-of-{}", team.slug);
    let mut all = Vec::new();
    for paused_at in [22, 21, 20, 23] {
        let mut sandbox = a_sandbox(&team.id, 1);
        sandbox.node.clone_from(&node);
        store.sandbox_insert(&sandbox, None).await.unwrap();
        let at = at(paused_at, 0);
        let paused = store.sandbox_pause(&sandbox.id, sandbox.generation, at, Kept::Files);
        sandbox.generation = paused.await.unwrap();
        all.push(sandbox);
    }
    let mut running = a_sandbox(&team.id, 1);
    running.node.clone_from(&node);
    store.sandbox_insert(&running, None).await.unwrap();
    let listed = async |before, after: Option<(Timestamp, SandboxId)>, rows_max| {
        let listing = store.sandbox_list_unstored(&node, before, after.as_ref(), rows_max);
        let listed = listing.await.unwrap();
        listed.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let ids = |order: &[usize]| {
        let id = |at: &usize| all[*at].id.clone();
        order.iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(listed(at(23, 0), None, 9).await, ids(&[2, 1, 0]));
    assert_eq!(listed(at(99, 0), None, 2).await, ids(&[2, 1]));
    let after = Some((at(21, 0), all[1].id.clone()));
    assert_eq!(listed(at(99, 0), after, 9).await, ids(&[0, 3]));
    store_pause(store, &team, &all[1]).await;
    assert_eq!(listed(at(99, 0), None, 9).await, ids(&[2, 0, 3]));
    let elsewhere = store.sandbox_list_unstored("another", at(99, 0), None, 9);
    assert_eq!(elsewhere.await.unwrap(), []);
}
